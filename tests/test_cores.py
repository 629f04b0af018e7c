"""Threads that do not wait for each other: quotas of control groups, idle cores, and what follows from them."""

import os
from pathlib import Path

import pytest
import torch

from orderbench.reports.conditions import describe_device
from orderbench.runs import cores, device, environment
from orderbench.runs.cores import Cores, choose_threads, cpu_quota, doubt, idle_cores
from orderbench.runs.device import doubt_threads, settle_threads


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2, V1 = "0::/box/job\n", "5:memory:/box\n2:cpu,cpuacct:/box/job\n0::/\n"


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        (V2, {"box/job/cpu.max": "12000 100000\n"}, 0.12),
        (V2, {"box/job/cpu.max": "max 100000\n", "box/cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"box/job/cpu.max": "400000 100000\n", "box/cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"cpu.max": "200000 100000\n"}, 2.0),  # in a container, which sees its own group as the top
        (V2, {"box/job/cpu.max": "max 100000\n"}, None),
        (V2, {"box/job/cpu.max": "broken"}, None),
        (V2, {}, None),
        (V1, {"cpu,cpuacct/box/job/cpu.cfs_quota_us": "12000\n",
              "cpu,cpuacct/box/job/cpu.cfs_period_us": "100000"}, 0.12),
        (V1, {"cpu/box/cpu.cfs_quota_us": "50000\n", "cpu/box/cpu.cfs_period_us": "20000"}, 2.5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("", {"cpu.max": "12000 100000\n"}, None),
    ],
)  # fmt: skip
def test_the_least_quota_of_a_process_and_its_groups(
    groups: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    here = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    assert cpu_quota(system(tmp_path, {"proc/self/cgroup": groups, **here})) == quota


def test_a_system_without_these_files(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert idle_cores(frozenset({0}), tmp_path, 0.0) is None


def test_idle_cores_are_counted_among_the_usable_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(idle: tuple[int, int, int]) -> dict[str, str]:
        lines = [f"cpu{i} {100 - n} 0 0 {n} 0 0 0 0 0 0" for i, n in enumerate(idle)]
        return {"proc/stat": "\n".join(["cpu  1 1 1 1 1 1 1 1 1 1", *lines, "intr 5"]) + "\n"}

    def passes(_: float) -> None:
        later = "\n".join(f"cpu{i} {busy} 0 0 {idle} 0 0 0 0 0 0" for i, (busy, idle) in enumerate(
            ((100, 100), (175, 25), (200, 0))))  # fmt: skip
        system(tmp_path, {"proc/stat": later + "\n"})

    monkeypatch.setattr(cores.time, "sleep", passes)
    system(tmp_path, stat((0, 0, 0)))
    assert idle_cores(frozenset({0, 1}), tmp_path) == 1.25
    system(tmp_path, stat((0, 0, 0)))
    assert idle_cores(frozenset({1, 2}), tmp_path) == 0.25


@pytest.mark.parametrize(
    ("most", "found", "n", "because"),
    [
        (2, Cores(2, None, 1.9), 2, "as many as cores are idle"),
        (2, Cores(2, None, None), 2, "as many as cores are idle"),
        (8, Cores(4, None, 3.9), 4, "this process may use 4 cores"),
        (8, Cores(8, 2.5, 7.0), 2, "a quota allows this process 2.5 cores"),
        (8, Cores(8, 0.12, 0.1), 1, "a quota allows this process 0.12 cores"),
        (8, Cores(8, None, 2.7), 3, "about 2.7 of 8 cores are idle, so times will vary"),
        (2, Cores(2, None, 0.0), 1, "about 0.0 of 2 cores are idle"),
    ],
)
def test_threads_follow_from_the_narrowest_limit(most: int, found: Cores, n: int, because: str) -> None:
    chosen, said = choose_threads(most, found)
    assert chosen == n
    assert said.startswith(f"{n} thread{'s' * (n > 1)}, ")
    assert because in said


def test_training_does_not_depend_on_the_load() -> None:
    assert choose_threads(8, Cores(8, None, 0.3), by_load=False) == (8, "8 threads, as many as this process may use")


def test_threads_that_were_asked_for_are_doubted_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doubt(1, Cores(2, None, 0.9)) == ""
    assert "about 0.3 of 2 cores are idle, so one thread will wait" in doubt(1, Cores(2, None, 0.3))
    assert doubt(2, Cores(2, 0.5, 2.0)) == "2 threads share a quota of 0.5 cores and will wait for each other"
    monkeypatch.setattr(device, "count_cores", lambda: Cores(2, 0.5, 2.0))
    before = torch.get_num_threads()
    try:
        assert settle_threads(2, "cpu") == ""
        assert torch.get_num_threads() == 2
        assert "share a quota" in doubt_threads("cpu")
        assert doubt_threads("cuda:0") == ""
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert settle_threads(None, "cpu") == ""
        assert torch.get_num_threads() == 2
        for name in cores.CHOSEN_BY:
            monkeypatch.delenv(name, raising=False)
        assert settle_threads(None, "cuda:0") == ""
        said = "1 thread, since a quota allows this process 0.5 cores; --threads N asks for another number"
        assert settle_threads(None, "cpu") == said
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_quota_is_recorded_and_makes_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "cpu_quota", lambda: 0.12)
    found = environment.capture("cpu")
    assert found["cpu"]["quota_cores"] == 0.12
    assert "a quota of 0.12 cores" in describe_device(found)
    free = {**found, "cpu": {**found["cpu"], "quota_cores": None}}
    assert "quota" not in describe_device(free)
    assert os.cpu_count() is None or found["cpu"]["cores_logical"] == os.cpu_count()
