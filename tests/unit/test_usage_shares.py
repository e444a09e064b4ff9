"""CPU shares from scrape to scrape: the stretch between two looks counts, and a number that was given anew does not lie."""

import os

from hotswap.node.usage import CpuShares


class Machine:
    def __init__(self) -> None:
        self.now = 100.0
        self.used: dict[int, float] = {}
        self.shares = CpuShares(lambda: self.now, self.used.get)

    def look(self, *pids: int) -> float:
        percent = self.shares.of(pids)
        self.shares.forget_others()
        return percent


def test_the_share_is_of_the_time_between_two_looks() -> None:
    machine = Machine()
    machine.used |= {1: 5.0, 2: 0.0}
    assert machine.look(1, 2) == 0.0, "nothing is known of before"
    machine.now += 10
    machine.used |= {1: 7.5, 2: 1.0}
    assert machine.look(1, 2) == 35.0
    machine.now += 10
    assert machine.look(1, 2) == 0.0


def test_a_process_that_ended_or_took_anothers_number_adds_nothing() -> None:
    machine = Machine()
    machine.used |= {1: 50.0, 2: 5.0}
    machine.look(1, 2)
    machine.now += 10
    machine.used |= {1: 0.1}
    del machine.used[2]
    assert machine.look(1, 2) == 0.0
    machine.now += 10
    machine.used |= {1: 1.1}
    assert machine.look(1) == 10.0


def test_what_is_not_looked_at_any_more_is_forgotten() -> None:
    machine = Machine()
    machine.used |= {1: 1.0}
    machine.look(1)
    machine.look()
    machine.now += 10
    machine.used |= {1: 9.0}
    assert machine.look(1) == 0.0


def test_the_kernel_is_asked_for_a_process_that_lives() -> None:
    shares = CpuShares()
    shares.of([os.getpid()])
    shares.forget_others()
    assert shares.of([os.getpid()]) >= 0.0
