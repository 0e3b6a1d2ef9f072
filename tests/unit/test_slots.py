"""What a slot is: GPUs dealt out or shared, or threads."""

import pytest

from danlu.executors.slots import Slots, gpus
from danlu.settings import Settings


def test_there_is_one_slot_for_each_gpu_or_one() -> None:
    assert Slots.of_machine(environment={"CUDA_VISIBLE_DEVICES": "0,1,2"}).number == 3
    assert Slots.of_machine(environment={"CUDA_VISIBLE_DEVICES": ""}).number == 1
    assert Slots.of_machine(5, environment={"CUDA_VISIBLE_DEVICES": "0"}).number == 5


def test_gpus_are_those_that_the_worker_was_given() -> None:
    assert gpus({"CUDA_VISIBLE_DEVICES": "2, GPU-1b,3"}) == ("2", "GPU-1b", "3")
    assert gpus({"CUDA_VISIBLE_DEVICES": "1,-1,2"}) == ("1",)


def test_a_job_sees_the_gpus_of_its_slots_only() -> None:
    each = Slots(4, ("0", "1", "2", "3"), is_threads_given=True)
    assert each.environment([2]) == {"CUDA_VISIBLE_DEVICES": "2"}
    assert each.environment([3, 0]) == {"CUDA_VISIBLE_DEVICES": "0,3"}

    assert each.environment([]) == {}

    dealt = Slots(2, ("0", "1", "2", "3"), is_threads_given=True)
    assert [dealt.environment([n])["CUDA_VISIBLE_DEVICES"] for n in (0, 1)] == ["0,2", "1,3"]

    shared = Slots(3, ("7",), is_threads_given=True)
    assert [shared.environment([n])["CUDA_VISIBLE_DEVICES"] for n in (0, 1, 2)] == ["7", "7", "7"]


def test_a_job_gets_the_threads_of_its_slots_unless_someone_has_set_them() -> None:
    assert Slots(4, num_threads=2).environment([0]) == {"OMP_NUM_THREADS": "2"}
    assert Slots(4, num_threads=2).environment([0, 1]) == {"OMP_NUM_THREADS": "4"}
    assert Slots.of_machine(2, environment={"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}).environment([0]) == {}


def test_the_number_of_slots_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, number in (("3", 3), ("", None), ("0", None), ("many", None)):
        monkeypatch.setenv("DANLU_WORKER_SLOTS", text)
        assert Settings.from_environment().worker_slots == number
