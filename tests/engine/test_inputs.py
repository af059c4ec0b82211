"""Inputs, events and results through a queue: what a handler gets is what was recorded, with all its digits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, TypedDict

import msgspec
import pytest
from pydantic import BaseModel, Field, SecretStr

from taskrun import DefinitionError, InputInvalid, Queue, job, pipe, run
from taskrun.engine import messages as m
from taskrun.model.records import Run
from taskrun.model.secrets import whole_input
from taskrun.stores.base import Store

LONG = "12345678901234567890.12"
BIG = 123456789012345678901234567890


class Order(BaseModel):
    user: str = Field(validation_alias="userName", default="nobody")
    price: Decimal
    token: SecretStr = SecretStr("")
    big: int = 0


class Track(TypedDict):
    title: str


orders = pipe("orders", input=Order)


async def quoted(order: Order) -> Order:
    return order


async def tracked() -> Track:
    return {"title": "a", "id": 2}  # type: ignore[typeddict-unknown-key]


@job
async def sell(order: Order) -> Order:
    quote = await run("quote", quoted, order)
    assert type(quote) is Order
    child: Order = await pass_on.run(order=quote, price=quote.price, big=quote.big)
    return child


@job
async def pass_on(order: Order, price: Decimal, big: int) -> Order:
    assert (price, big) == (order.price, order.big)
    return order


@job(trigger=[orders])
async def ordered(order: Order) -> str:
    return f"{order.user} {order.price} {order.token.get_secret_value()} {order.big}"


@job
async def lists() -> Any:
    return await run("tracked", tracked)


TEXT = f'{{"userName":"bob","price":{LONG},"token":"s3cret","big":{BIG}}}'
WHOLE = Order.model_validate({"userName": "bob", "price": LONG, "token": "s3cret", "big": BIG})


@pytest.fixture
def jobs() -> list[Any]:
    return [sell, pass_on, ordered, lists]


async def test_aliases_decimals_secrets_and_big_ints_pass_through_runs_steps_and_children(
    storage: Store, jobs: list[Any]
) -> None:
    async with Queue(jobs, storage=storage) as queue:
        assert await queue.jobs.sell.run(WHOLE) == WHOLE
        assert await queue.jobs.sell.run({"userName": "bob", "price": LONG, "token": "s3cret", "big": BIG}) == WHOLE


async def test_json_of_anybody_keeps_its_digits(storage: Store, jobs: list[Any]) -> None:
    async with Queue(jobs, storage=storage) as queue:
        executor = queue._executor
        assert executor is not None
        prepared = executor.prepare(m.Prepare(job="ordered", input=TEXT))
        assert msgspec.json.decode(prepared.input)["price"] == LONG
        event = executor.prepare_event(m.PrepareEvent(pipe="orders", data=TEXT))
        [routed] = executor.route(m.Route(topic="pipe:orders", data=event, job="ordered")).starts
        assert (routed.input, routed.secrets) == (prepared.input, prepared.secrets)
        run = Run(id="a", job="ordered", created_at=0.0, input=prepared.input, secrets=prepared.secrets)
        assert "s3cret" not in run.input
        assert whole_input(run) == event


async def test_a_step_keeps_the_further_keys_of_its_typed_dict(storage: Store, jobs: list[Any]) -> None:
    async with Queue(jobs, storage=storage) as queue:
        assert await queue.jobs.lists.run() == {"title": "a", "id": 2}


async def test_what_is_refused_is_not_recorded(storage: Store) -> None:
    class Counting:
        def validate(self, value: Any) -> Any:
            return {"n": value["n"] + 1}

    def exits(value: Any) -> int:
        raise SystemExit(0)

    counts = pipe("counts", input=Counting())

    @job(input=Counting())
    async def count(n: int) -> None: ...

    @job(retry=exits)
    async def exiting() -> None: ...

    async with Queue([count, exiting], pipes=[counts], storage=storage) as queue:
        with pytest.raises(InputInvalid, match="n: does not read back"):
            await queue.jobs.count.start(n=1)
        with pytest.raises(InputInvalid, match="n: does not read back"):
            await queue.pipes.counts.send(n=1)
        with pytest.raises(DefinitionError, match="job exiting, option retry: its function raised SystemExit"):
            await queue.jobs.exiting.start()
        assert [entry async for entry in queue.runs()] == []
