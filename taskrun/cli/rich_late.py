"""Rich's text, loaded when the first piece is made: a command that prints data for a pipe never makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskrun.cli.late import load_rich

if TYPE_CHECKING:
    from rich.cells import cell_len as cell_len
    from rich.text import Text as Text
else:

    class _Late:
        """Stands for a name of a module of rich."""

        def __init__(self, module: str, name: str) -> None:
            self._module, self._name = module, name

        def __call__(self, *args: Any, **options: Any) -> Any:
            return getattr(load_rich(self._module), self._name)(*args, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(getattr(load_rich(self._module), self._name), name)

    Text = _Late("text", "Text")
    cell_len = _Late("cells", "cell_len")
