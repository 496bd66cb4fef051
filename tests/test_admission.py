from __future__ import annotations

import asyncio

import pytest

from serving.admission import Admission, Busy, Overdue


def test_as_many_run_and_wait_as_may_and_the_rest_is_told_when_to_come_back() -> None:
    async def scene() -> None:
        admission, release, served = Admission(concurrent=2, queue=1), asyncio.Event(), []

        async def repair(number: int) -> None:
            async with admission.slot(100):
                served.append(number)
                await release.wait()

        tasks = [asyncio.create_task(repair(number)) for number in range(3)]
        await asyncio.sleep(0)
        assert (admission.running, admission.waiting, admission.pixels) == (2, 1, 300)
        with pytest.raises(Busy) as busy:
            await repair(3)
        assert busy.value.retry_after >= 1
        release.set()
        await asyncio.gather(*tasks)
        assert served == [0, 1, 2]
        assert (admission.running, admission.waiting, admission.pixels) == (0, 0, 0)

    asyncio.run(scene())


def test_large_pictures_do_not_come_together() -> None:
    async def scene() -> None:
        admission = Admission(concurrent=4, queue=4, max_pixels=1000)
        async with admission.slot(5000):  # alone, any size
            with pytest.raises(Busy):
                await admission.slot(1).__aenter__()
        async with admission.slot(600), admission.slot(400):
            pass

    asyncio.run(scene())


def test_who_waits_too_long_or_leaves_gives_its_place_back() -> None:
    async def scene() -> None:
        admission = Admission(concurrent=1, queue=2, deadline=0.05)
        async with admission.slot(1):
            with pytest.raises(Overdue):
                await admission.slot(1).__aenter__()
            left = asyncio.create_task(admission.slot(1).__aenter__())
            await asyncio.sleep(0)
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            assert (admission.waiting, admission.pixels) == (0, 1)
        async with admission.slot(1):
            assert admission.running == 1
        assert admission.running == 0

    asyncio.run(scene())


def test_a_slot_that_comes_while_its_request_leaves_is_not_lost() -> None:
    async def scene() -> None:
        admission = Admission(concurrent=1, queue=1)
        holder = admission.slot(1)
        await holder.__aenter__()
        waiting = asyncio.create_task(admission.slot(1).__aenter__())
        await asyncio.sleep(0)
        await holder.__aexit__(None, None, None)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        async with admission.slot(1):
            pass
        assert admission.running == 0

    asyncio.run(scene())


def test_half_as_many_again_are_let_in_as_the_engine_computes_at_a_time() -> None:
    async def scene(parallel: int) -> int:
        admission, slots, tasks = Admission(concurrent=2), [], []
        admission.fit(parallel)
        with pytest.raises(Busy):
            while True:
                admission.check()
                slots.append(admission.slot(1))
                tasks.append(asyncio.create_task(slots[-1].__aenter__()))
                await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(slots)

    assert [asyncio.run(scene(parallel)) for parallel in (1, 2, 4)] == [2, 3, 6]
