"""Measure every row of the table: contenders take turns, so that other load on the machine affects all alike; medians of the turns."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.send import package
from tools.bench.send.stage import MEMORY, THREADS, Stage
from tools.bench.send.workload import BATCH, EVERYONE, LARGE, LARGE_MAILS, LARGEST_FILE, file_of, message

TURNS = 5
BATCH_TURNS = 9  # a batch takes less than a second: other load on the machine may hit a turn of one contender only
STARTS = 5
SEEN = 1000  # tenants
SENDS, OVER = 1000, 200  # messages, tenants
MB = 1_000_000

SPEED, CPU = 0.77, 1.3
"""Goals of a batch's speed and of a message's CPU, as multiples of the floor's; the page says why."""
LARGE_IN_A_BATCH = 6
RAW = LARGEST_FILE * 78 // 57  # bytes of its base64 in lines; the bodies add a thousandth

Turn = Mapping[str, Mapping[str, float] | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `is_reached` says whether the figure meets the goal."""

    what: str
    goal: str
    figure: str
    is_reached: bool | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """All measurements."""

    rows: Sequence[Row]
    turns: Sequence[Turn]
    threads: Mapping[int, Mapping[str, float]]
    sizes: Mapping[int, Mapping[str, float]]
    shares: Mapping[str, float]


def on_node(stage: Stage, **options: int) -> dict[str, float] | None:
    """Measure nodemailer with the same tenants and mail."""
    configs = {tenant.tenant_id: tenant.config for tenant in EVERYONE}
    return stage.node(configs=configs, content=message(), **{"size": BATCH, "count": 5, "file": 0, **options})


def measure(stage: Stage, folder: Path) -> Results:
    """Run all measurements."""
    turns = [
        {
            "ours": stage.run("ours", "batch", count=3),
            "send only": stage.run("ours", "send_only", count=3),
            "floor": stage.run("others", "floor", count=3),
            "loop": stage.run("others", "loop"),
            "powertools": stage.run("others", "powertools"),
            "node": on_node(stage, count=3),
        }
        for _ in range(BATCH_TURNS)
    ]
    large = [
        {
            "ours": stage.run("ours", "large", count=5),
            "loop": stage.run("others", "loop_large", count=3),
            "node": on_node(stage, size=1, file=LARGE),
        }
        for _ in range(TURNS)
    ]
    rows = [
        *batch_rows(turns),
        *first_rows(stage),
        *new_tenant_rows(stage),
        *large_rows(large),
        *v2_rows({size: v2_turns(stage, size) for size in LARGE_MAILS}),
        *resource_rows(stage),
        *v2_memory_rows(stage),
        *start_rows(stage, folder),
    ]
    threads = {n: stage.run("ours", "batch", count=3, threads=n) for n in (8, 16, 32, 64)}
    sizes = {n: stage.run("ours", "batch", count=5, size=n) for n in (1, 10, 25, 50, 100)}
    return Results(rows, turns, threads, sizes, stage.run("ours", "profile"))


def median(turns: Sequence[Turn], of: Callable[[Any], float]) -> float:
    """Return the median of the turns; each ratio is taken within one turn."""
    return statistics.median(of(turn) for turn in turns)


def batch_rows(turns: Sequence[Turn]) -> Sequence[Row]:
    """Compare one batch of 100 for 20 tenants."""
    loop = median(turns, lambda t: t["loop"]["wall"] / t["ours"]["wall"])
    powertools = median(turns, lambda t: t["powertools"]["wall"] / t["ours"]["wall"])
    floor_loop = median(turns, lambda t: t["loop"]["wall"] / t["floor"]["wall"])
    speed = median(turns, lambda t: t["floor"]["wall"] / t["ours"]["wall"])
    cpu = median(turns, lambda t: t["ours"]["cpu"]) * 1000
    floor_cpu = median(turns, lambda t: t["floor"]["cpu"]) * 1000
    times = median(turns, lambda t: t["ours"]["cpu"] / t["floor"]["cpu"])
    figure = f"{loop:.1f} × faster; the floor {floor_loop:.1f} ×"
    rows = [
        Row(
            "claim + send + mark, against a sequential boto3 loop, wall",
            f"≥ {SPEED} of the floor's",
            f"{speed:.2f}; {figure}",
            speed >= SPEED,
        ),
        Row("the same against Powertools' sequential BatchProcessor", "–", f"{powertools:.1f} × faster"),
    ]
    if all(turn["node"] for turn in turns):
        node = median(turns, lambda t: t["send only"]["wall"] / t["node"]["wall"])
        rows.append(Row("compose + send alone, against nodemailer on Node, wall", "≤ 0.7 ×", f"{node:.2f} ×", node <= 0.7))
    figure = f"{times:.2f} ×; {cpu:.1f} ms of {floor_cpu:.1f} ms"
    return [*rows, Row("CPU per message, claim + send + mark", f"≤ {CPU} × the floor", figure, times <= CPU)]


def first_rows(stage: Stage) -> Sequence[Row]:
    """Compare a process's first message, which includes creating clients and connections, with the batch after it."""
    turns = [{"ours": stage.run("ours", "first_message")} for _ in range(TURNS)]
    ratio = median(turns, lambda t: t["ours"]["first"] / t["ours"]["batch"])
    first = median(turns, lambda t: t["ours"]["first"]) * 1000
    what = f"first message after init, against the batch of {BATCH} after it, wall"
    return [Row(what, "≤ 2 ×", f"{ratio:.1f} × ({first:.0f} ms)", ratio <= 2)]


def new_tenant_rows(stage: Stage) -> Sequence[Row]:
    """Compare the first message of a tenant with its next."""
    turns = [{"ours": stage.run("ours", "new_tenants", count=20)} for _ in range(TURNS)]
    ratio = median(turns, lambda t: t["ours"]["ratio"])
    decrypt = median(turns, lambda t: t["ours"]["decrypt"]) * 1000
    return [
        Row(
            "first message of a new tenant, minus one decrypt, against its next, CPU",
            "≤ 1.3 ×",
            f"{ratio:.2f} × (decrypt: {decrypt:.1f} ms)",
            ratio <= 1.3,
        )
    ]


def large_rows(turns: Sequence[Turn]) -> Sequence[Row]:
    """Compare one message with 5 MB attached."""
    loop = median(turns, lambda t: t["loop"]["cpu"] / t["ours"]["cpu"])
    rows = [Row("5 MB attached, compose + send, against boto3 and EmailMessage, CPU", "≥ 8 × less", f"{loop:.1f} ×", loop >= 8)]
    if all(turn["node"] for turn in turns):
        node = median(turns, lambda t: t["ours"]["cpu"] / t["node"]["cpu"])
        rows.append(Row("the same against nodemailer on Node", "≤ 1.0 ×", f"{node:.2f} ×", node <= 1))
    return rows


def v2_turns(stage: Stage, size: int) -> Sequence[Turn]:
    """Measure a mail of `size` bytes, sent by SES v2, and nodemailer with the same mail."""
    file = file_of(size)
    return [
        {"ours": stage.run("ours", "large", count=3, size=file), "node": on_node(stage, size=1, file=file, count=3)} for _ in range(TURNS)
    ]


def v2_rows(by_size: Mapping[int, Sequence[Turn]]) -> Iterator[Row]:
    """Compare mail sent by SES v2 with nodemailer's."""
    for size, turns in by_size.items():
        for what, field in (("CPU", "cpu"), ("wall", "wall")):
            yield _v2_row(f"a mail of {size // MB} MB, by SES v2, compose + send", what, turns, field)


def _v2_row(mail: str, what: str, turns: Sequence[Turn], field: str) -> Row:
    took = median(turns, lambda turn: turn["ours"][field]) * 1000
    if not all(turn["node"] for turn in turns):
        return Row(f"{mail}, {what}", "–", f"{took:.0f} ms")
    ratio = median(turns, lambda turn: turn["ours"][field] / turn["node"][field])
    return Row(f"{mail}, against nodemailer on Node, {what}", "≤ 1.0 ×", f"{ratio:.2f} ×; {took:.0f} ms", ratio <= 1)


def v2_memory_rows(stage: Stage) -> Iterator[Row]:
    """Measure the memory for a mail sent by SES v2."""
    size = LARGE_MAILS[-1]
    one = stage.run("ours", "largest", count=1, file=file_of(size), memory=512)
    times = (one["peak"] - one["before"]) / size
    figure = f"{times:.1f} ×; {one['peak'] / MB:.0f} MB in all"
    yield Row(f"a mail of {size // MB} MB in a function of 512 MB, peak above the idle process", "≤ 4 × its size", figure, times <= 4)
    peak = stage.run("ours", "largest", count=LARGE_IN_A_BATCH, file=file_of(size))["peak"] / MB
    what = f"a batch of {LARGE_IN_A_BATCH} such mails in a function of {MEMORY} MB, peak"
    yield Row(what, f"< {MEMORY} MB", f"{peak:.0f} MB", peak < MEMORY)


def resource_rows(stage: Stage) -> Sequence[Row]:
    """Count the AWS calls and the memory that sending takes."""
    grown = stage.run("ours", "memory_of_tenants", tenants=SEEN)["bytes"] / MB
    many = stage.run("ours", "many_tenants", tenants=OVER, sends=SENDS)
    one = stage.run("ours", "largest", count=1, memory=512)
    times = (one["peak"] - one["before"]) / RAW
    rows = [
        Row(f"memory for {SEEN} tenants seen", "≤ 20 MB", f"{grown:.1f} MB", grown <= 20),
        Row(
            f"TLS handshakes with SES, first {SENDS} messages over {OVER} tenants",
            f"≤ {THREADS}, the threads",
            f"{many['handshakes']:.0f}",
            many["handshakes"] <= THREADS,
        ),
        Row("DynamoDB writes per message, steady state, pacing included", "≤ 2.3", f"{many['writes']:.2f}", many["writes"] <= 2.3),
        Row("KMS calls per message, steady state", "≤ 0.01", f"{many['kms']:.3f}", many["kms"] <= 0.01),
        Row(
            f"a message of {RAW / MB:.1f} MB in a function of 512 MB, peak above the idle process",
            "≤ 4 × its size",
            f"{times:.1f} ×; {one['peak'] / MB:.0f} MB in all",
            times <= 4,
        ),
    ]
    for memory in (MEMORY, 1024):
        hundred = stage.run("ours", "largest", count=BATCH, memory=memory)
        peak = hundred["peak"] / MB
        rows.append(
            Row(f"a batch of {BATCH} such messages in a function of {memory} MB, peak", f"< {memory} MB", f"{peak:.0f} MB", peak < memory)
        )
    return rows


def start_rows(stage: Stage, folder: Path) -> Sequence[Row]:
    """Compare the shipped package with that of a plain `sam build` of the same code."""
    packed = package.pack(folder)
    shipped, plain = (package.starts(stage, packed[name], STARTS) for name in (package.SHIPPED, package.PLAIN))
    ratio, unzipped = plain["init"] / shipped["init"], package.size(packed[package.SHIPPED]) / MB
    whole = sum(plain.values()) / sum(shipped.values())
    return [
        Row("init of SendFunction under AWS's emulator", "≤ 0.9 s", f"{shipped['init']:.2f} s", shipped["init"] <= 0.9),
        Row("the same, against the package without compiled modules", "–", f"{ratio:.1f} × faster ({plain['init']:.2f} s)"),
        Row("init and the first message, against the same", "–", f"{whole:.1f} × ({sum(shipped.values()):.2f} s)"),
        Row("package, unzipped", "≤ 60 MB", f"{unzipped:.1f} MB", unzipped <= 60),
    ]
