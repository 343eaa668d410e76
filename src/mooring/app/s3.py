"""The S3 process: the embedded object store over `<data>/s3`."""

import asyncio
import logging
import signal

import uvloop

from mooring.app import root
from mooring.app.launch import Launch
from mooring.domain.channel import S3_WORKER
from mooring.domain.routing import RouteTable
from mooring.edge.routes import Subscriber
from mooring.kit.tasks import Group
from mooring.kms.root import RootKeys
from mooring.objects import serve
from mooring.objects.credentials import CredentialSource
from mooring.objects.errors import KeyLostError
from mooring.supervisor.children import EXIT_HOPELESS

logger = logging.getLogger(__name__)


def run(launch: Launch) -> int:
    """Until SIGTERM; returns the exit status."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(launch))


async def _run(launch: Launch) -> int:
    settings = launch.settings
    source = CredentialSource(settings.region)
    # The root key is known at once, so that storage answers while control is still starting; others follow by the channel.
    source.replace([await asyncio.to_thread(root.credential, settings)])

    def swap(table: RouteTable) -> None:
        source.replace(table.credentials)

    failed = asyncio.Event()
    tasks = Group("s3", on_failure=lambda _name, _error: failed.set())
    subscriber = Subscriber(str(launch.run_dir / "routes.sock"), worker=S3_WORKER, swap=swap)
    tasks.start("credentials", subscriber.run())
    serving = tasks.start("serve", _serve(launch, source))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    await asyncio.wait([serving, tasks.start("failure", failed.wait())], return_when=asyncio.FIRST_COMPLETED)
    await tasks.aclose()
    if failed.is_set():
        return 1
    return 0 if serving.cancelled() else serving.result()


async def _serve(launch: Launch, source: CredentialSource) -> int:
    """Until cancelled, or until it is clear that it cannot work; returns the exit status."""
    settings = launch.settings
    try:
        await serve.run(
            launch.listen_fd,
            settings.data_dir / "s3",
            region=settings.region,
            account=settings.account_id,
            credentials=source,
            keys=RootKeys(settings.data_dir / "keys", root.scope(settings)),
            ready=lambda: logger.debug("serving"),
        )
    except KeyLostError as error:
        logger.critical("%s", error)
        return EXIT_HOPELESS
    return 0
