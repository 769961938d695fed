"""Run the proxies in a thread of the calling process, without an emulator behind SES: for tests of one adapter, and for benchmarks.

    with standalone_ses(tmp_path) as ses:
        client = session.client("ses", endpoint_url=ses.url)
        ses.control.inject("hang", times=1)

This SES has no identities and checks no signature: it accepts every well-formed mail.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.local_aws.control import Control, ControlServer
from tools.local_aws.feedback import Feedback, NoRouting
from tools.local_aws.proxy import HOST, FaultProxy, Wire
from tools.local_aws.ses import Ledger, SesGate


@dataclass(frozen=True, slots=True)
class StandaloneSes:
    """URLs and control client of the proxies."""

    urls: Mapping[str, str]
    control: Control

    @property
    def url(self) -> str:
        """URL of SES."""
        return self.urls["ses"]


@contextmanager
def standalone_ses(directory: Path, upstreams: Mapping[str, tuple[str, int]] | None = None) -> Iterator[StandaloneSes]:
    """Serve SES, and a fault proxy in front of each other server given as (host, port), until the block ends."""
    started: asyncio.Future[StandaloneSes]
    loop = asyncio.new_event_loop()
    started, stop = loop.create_future(), asyncio.Event()
    ready = threading.Event()
    started.add_done_callback(lambda _: ready.set())
    thread = threading.Thread(target=loop.run_until_complete, args=(_serve(directory, upstreams or {}, started, stop),))
    thread.start()
    ready.wait()
    try:
        yield started.result()
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _serve(
    directory: Path, upstreams: Mapping[str, tuple[str, int]], started: asyncio.Future[StandaloneSes], stop: asyncio.Event
) -> None:
    shared = Wire()
    feedback = Feedback(NoRouting(), shared.changes)
    gate = SesGate(Ledger(directory), feedback, standalone=True)
    proxies = {"ses": FaultProxy("ses", shared, gate=gate)}
    proxies |= {name: FaultProxy(name, shared, upstream=upstream) for name, upstream in upstreams.items()}
    control = ControlServer(shared, proxies, gate)
    try:
        for proxy in proxies.values():
            await proxy.start()
        url = f"http://{HOST}:{await control.start()}"
        started.set_result(StandaloneSes({name: proxy.url for name, proxy in proxies.items()}, Control(url)))
        await stop.wait()
    except BaseException as error:
        if not started.done():
            started.set_exception(error)
        raise
    finally:
        shared.release()
        feedback.stop()
        for proxy in proxies.values():
            await proxy.stop()
        await control.stop()
