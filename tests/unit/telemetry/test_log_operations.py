"""CloudWatch Logs operations over files that grow, rotate and vanish."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.domain.ids import Scope
from mooring.kit.logfile import SegmentWriter
from mooring.telemetry import log_operations, segments
from mooring.telemetry.log_operations import InvalidParameter, ResourceNotFound
from mooring.telemetry.log_store import LogStore, directory_name
from mooring.telemetry.platform_log import PlatformLog

SCOPE = Scope(account="000000000000", region="us-east-1")
GROUP = "/aws/sagemaker/Endpoints/demo"
STREAM = "AllTraffic/i-1"


def directory(root: Path, stream: str = STREAM, group: str = GROUP) -> Path:
    return root / (directory_name(group) or "") / (directory_name(stream) or "")


def put(root: Path, events: list[tuple[int, str]], stream: str = STREAM, writer: str = "out", **sizes: int) -> None:
    segment = SegmentWriter(str(directory(root, stream)), writer, **sizes)
    for ms, text in events:
        segment.append(ms, text)
    segment.close()


@pytest.fixture
def store(tmp_path: Path) -> LogStore:
    return LogStore(tmp_path)


def get(store: LogStore, **params: object) -> dict:
    return log_operations.get_log_events(store, SCOPE, {"logGroupName": GROUP, "logStreamName": STREAM, **params})


def search(store: LogStore, **params: object) -> dict:
    return log_operations.filter_log_events(store, SCOPE, {"logGroupName": GROUP, **params})


def messages(answer: dict) -> list[str]:
    return [event["message"] for event in answer["events"]]


def test_writers_of_one_stream_are_merged_by_time(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "a"), (4, "d")])
    put(tmp_path, [(2, "b"), (3, "c"), (5, "e")], writer="platform")
    assert messages(get(store, startFromHead=True)) == ["a", "b", "c", "d", "e"]
    assert messages(get(store)) == ["a", "b", "c", "d", "e"]


def test_without_start_from_head_the_newest_come_in_order_and_back_goes_on(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(n, f"m{n}") for n in range(10)])
    newest = get(store, limit=3)
    assert messages(newest) == ["m7", "m8", "m9"]
    before = get(store, limit=4, nextToken=newest["nextBackwardToken"])
    assert messages(before) == ["m3", "m4", "m5", "m6"]
    assert messages(get(store, nextToken=before["nextForwardToken"])) == ["m7", "m8", "m9"]


def test_the_same_token_comes_back_at_the_end_and_gives_what_is_written_later(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "a"), (2, "b")])
    first = get(store, startFromHead=True)
    at_end = get(store, startFromHead=True, nextToken=first["nextForwardToken"])
    assert at_end["events"] == []
    assert at_end["nextForwardToken"] == first["nextForwardToken"]
    put(tmp_path, [(3, "c")])
    assert messages(get(store, nextToken=at_end["nextForwardToken"])) == ["c"]


def test_going_back_from_the_first_event_gives_the_same_token(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "a")])
    token = get(store)["nextBackwardToken"]
    answer = get(store, nextToken=token)
    assert answer["events"] == []
    assert answer["nextBackwardToken"] == token


def test_a_writer_that_comes_later_is_read_by_an_older_token(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "a")])
    token = get(store, startFromHead=True)["nextForwardToken"]
    put(tmp_path, [(2, "late")], writer="platform")
    assert messages(get(store, nextToken=token)) == ["late"]


def test_a_line_that_is_still_being_written_is_not_there_yet(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "a")])
    path = next(directory(tmp_path).iterdir())
    with path.open("ab") as file:
        file.write(b"2\thalf")
    answer = get(store, startFromHead=True)
    assert messages(answer) == ["a"] == messages(get(store))
    with path.open("ab") as file:
        file.write(b" done\n")
    assert messages(get(store, nextToken=answer["nextForwardToken"])) == ["half done"]


def test_lines_that_are_no_events_are_passed_over(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "a")])
    with next(directory(tmp_path).iterdir()).open("ab") as file:
        file.write(b"garbage\n\n5\tz\n")
    assert messages(get(store, startFromHead=True)) == ["a", "z"] == messages(get(store))


def test_start_time_is_inclusive_and_end_time_exclusive(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(n, f"m{n}") for n in range(5)])
    for from_head in (True, False):
        assert messages(get(store, startTime=1, endTime=3, startFromHead=from_head)) == ["m1", "m2"]


def test_a_page_ends_at_one_megabyte(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(n, "x" * 200_000) for n in range(12)], max_bytes=500_000)
    seen, answer = 0, get(store, startFromHead=True)
    while answer["events"]:
        assert sum(len(text) for text in messages(answer)) <= 1 << 20
        seen += len(answer["events"])
        answer = get(store, nextToken=answer["nextForwardToken"])
    assert seen == 12


def test_multi_line_text_comes_back_as_it_was(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "Traceback:\n\tboom\\n\r")])
    assert messages(get(store)) == ["Traceback:\n\tboom\\n\r"]


@pytest.mark.parametrize("token", ["x", "f/", "f/!!!", "q/W10", "f/" + "A" * 10_000, "f/W1siLi4vLi4veCIsMSwxXV0"])
def test_a_token_that_is_not_ours_is_refused(token: str, store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "a")])
    with pytest.raises(InvalidParameter, match="nextToken is invalid"):
        get(store, nextToken=token)


def test_a_token_into_the_middle_of_a_line_is_refused(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "a")])
    token = log_operations.log_tokens.of_position("f", {"out": (1, 2)})
    with pytest.raises(InvalidParameter, match="nextToken is invalid"):
        get(store, nextToken=token)


def test_a_token_whose_segment_was_rotated_away_goes_on_with_what_is_left(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "old")])
    token = get(store, startFromHead=True)["nextForwardToken"]
    put(tmp_path, [(n, "y" * 50) for n in range(2, 9)], max_bytes=100, max_segments=2)
    assert messages(get(store, nextToken=token)) == ["y" * 50] * 2


def test_what_is_not_there_is_told_in_cloudwatch_words(store: LogStore, tmp_path: Path) -> None:
    with pytest.raises(ResourceNotFound, match=r"^The specified log group does not exist\.$"):
        get(store)
    with pytest.raises(ResourceNotFound, match=r"^The specified log group does not exist\.$"):
        search(store)
    put(tmp_path, [(1, "a")])
    with pytest.raises(ResourceNotFound, match=r"^The specified log stream does not exist\.$"):
        get(store, logStreamName="other")
    with pytest.raises(ResourceNotFound):
        search(store, logStreamNames=["other"])


@pytest.mark.parametrize("name", ["..", ".", "../../etc", "a/../../b", "x" * 400])
def test_names_cannot_leave_the_log_directory(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "logs"
    put(tmp_path, [(1, "outside")], stream="s")
    store = LogStore(inside)
    with pytest.raises(ResourceNotFound):
        log_operations.get_log_events(store, SCOPE, {"logGroupName": name, "logStreamName": "s"})
    with pytest.raises(ResourceNotFound):
        log_operations.get_log_events(store, SCOPE, {"logGroupName": GROUP, "logStreamName": name})


def test_members_that_are_not_offered_are_refused(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "a")])
    with pytest.raises(InvalidParameter, match="unmask"):
        get(store, unmask=True)
    with pytest.raises(InvalidParameter, match="logGroupClass"):
        log_operations.describe_log_groups(store, SCOPE, {"logGroupClass": "STANDARD"})
    with pytest.raises(InvalidParameter, match="JSON"):
        search(store, filterPattern="{ $.a = 1 }")


def test_a_search_merges_streams_and_pages_through_all_of_them(store: LogStore, tmp_path: Path) -> None:
    for stream in ("v/a", "v/b", "w/c"):
        put(tmp_path, [(n, f"{stream} {n}") for n in range(7)], stream=stream)
    seen: list[dict] = []
    answer = search(store, limit=5)
    while True:
        seen += answer["events"]
        if "nextToken" not in answer:
            break
        answer = search(store, limit=5, nextToken=answer["nextToken"])
    assert len(seen) == 21
    assert [event["timestamp"] for event in seen] == sorted(event["timestamp"] for event in seen)
    assert len({event["eventId"] for event in seen}) == 21
    assert sorted(seen, key=lambda event: event["eventId"]) != []


def test_a_search_from_the_latest_event_is_the_same_reversed(store: LogStore, tmp_path: Path) -> None:
    for stream in ("v/a", "v/b"):
        put(tmp_path, [(n, f"{stream} {n}") for n in range(7)], stream=stream)
    newest, token = [], None
    while True:
        answer = search(store, startFromHead=False, limit=4, **({"nextToken": token} if token else {}))
        newest += messages(answer)
        token = answer.get("nextToken")
        if token is None:
            break
    assert newest == messages(search(store))[::-1]


def test_a_search_is_narrowed_by_names_prefix_time_and_pattern(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "ERROR one"), (2, "fine"), (3, "ERROR two")], stream="v/a")
    put(tmp_path, [(2, "ERROR other")], stream="w/b")
    assert messages(search(store, filterPattern="ERROR")) == ["ERROR one", "ERROR other", "ERROR two"]
    assert messages(search(store, logStreamNames=["w/b"])) == ["ERROR other"]
    assert messages(search(store, logStreamNamePrefix="v/", filterPattern="ERROR")) == ["ERROR one", "ERROR two"]
    assert messages(search(store, startTime=2, endTime=2)) == ["fine", "ERROR other"]
    with pytest.raises(InvalidParameter, match="mutually exclusive"):
        search(store, logStreamNames=["w/b"], logStreamNamePrefix="w")


def test_groups_are_listed_by_prefix_pattern_and_page(store: LogStore, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        PlatformLog(tmp_path, _Clock()).write(f"/aws/sagemaker/Endpoints/{name}", "s", "hello")
    everything = log_operations.describe_log_groups(store, SCOPE, {})
    assert [group["logGroupName"][-1] for group in everything["logGroups"]] == ["a", "b", "c"]
    assert everything["logGroups"][0]["arn"].endswith("log-group:/aws/sagemaker/Endpoints/a:*")
    assert everything["logGroups"][0]["creationTime"] == 1_700_000_000_250
    page = log_operations.describe_log_groups(store, SCOPE, {"limit": 2})
    rest = log_operations.describe_log_groups(store, SCOPE, {"limit": 2, "nextToken": page["nextToken"]})
    assert [group["logGroupName"][-1] for group in rest["logGroups"]] == ["c"]
    assert "nextToken" not in rest
    assert log_operations.describe_log_groups(store, SCOPE, {"logGroupNamePrefix": "/other"}) == {"logGroups": []}
    assert (
        len(log_operations.describe_log_groups(store, SCOPE, {"logGroupNamePattern": "ENDPOINTS/b"})["logGroups"]) == 1
    )


def test_streams_are_listed_by_name_and_by_last_event(store: LogStore, tmp_path: Path) -> None:
    for stream, ms in (("v/a", 30), ("v/b", 10), ("v/c", 20)):
        put(tmp_path, [(1, "x"), (ms, "y")], stream=stream)

    def names(**params: object) -> list[str]:
        found, token = [], None
        while True:
            more = {"nextToken": token} if token else {}
            answer = log_operations.describe_log_streams(
                store, SCOPE, {"logGroupName": GROUP, "limit": 2, **params, **more}
            )
            found += [stream["logStreamName"] for stream in answer["logStreams"]]
            token = answer.get("nextToken")
            if token is None:
                return found

    assert names() == ["v/a", "v/b", "v/c"]
    assert names(descending=True) == ["v/c", "v/b", "v/a"]
    assert names(orderBy="LastEventTime") == ["v/b", "v/c", "v/a"]
    assert names(orderBy="LastEventTime", descending=True) == ["v/a", "v/c", "v/b"]
    assert names(logStreamNamePrefix="v/b") == ["v/b"]
    with pytest.raises(InvalidParameter, match="Cannot order by LastEventTime with a logStreamNamePrefix"):
        names(orderBy="LastEventTime", logStreamNamePrefix="v")
    described = log_operations.describe_log_streams(store, SCOPE, {"logGroupName": GROUP})["logStreams"][0]
    assert (described["firstEventTimestamp"], described["lastEventTimestamp"]) == (1, 30)


def test_a_group_may_be_named_by_its_arn(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(1, "a")])
    arn = f"arn:aws:logs:us-east-1:000000000000:log-group:{GROUP}"
    for identifier in (GROUP, arn, arn + ":*"):
        answer = log_operations.get_log_events(
            store, SCOPE, {"logGroupIdentifier": identifier, "logStreamName": STREAM}
        )
        assert messages(answer) == ["a"]
    with pytest.raises(ResourceNotFound):
        log_operations.filter_log_events(store, SCOPE, {"logGroupIdentifier": arn.replace("us-east-1", "eu-west-1")})
    with pytest.raises(InvalidParameter, match="Exactly one"):
        log_operations.filter_log_events(store, SCOPE, {})


def test_retention_removes_the_oldest_first_and_spares_open_files(store: LogStore, tmp_path: Path) -> None:
    put(tmp_path, [(n, "x" * 90) for n in range(5)], stream="live", max_bytes=100)
    put(tmp_path, [(n, "x" * 90) for n in range(5)], stream="gone", max_bytes=100)
    for age, path in enumerate(sorted(tmp_path.rglob("*.log"))):
        os.utime(path, (age, age))
    live = {(GROUP, "live")}
    total = sum(path.stat().st_size for path in tmp_path.rglob("*.log"))
    assert store.retain(max_bytes=total, live=live) == 0
    store.retain(max_bytes=total // 2, live=live)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.log")) <= total // 2
    store.retain(max_bytes=0, live=live)
    assert [path.name for path in tmp_path.rglob("*.log")] == ["out-00000005.log"]
    store.retain(max_bytes=0, live=live)  # the empty directory goes with the next pass
    assert store.streams(GROUP) == ["live"]
    assert not directory(tmp_path, "gone").exists()


class _Clock:
    def now_s(self) -> float:
        return 1_700_000_000.25

    def monotonic_s(self) -> float:
        return 0.0


LINES = st.lists(st.tuples(st.integers(0, 50), st.text(max_size=30)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(out=LINES, platform=LINES, block=st.integers(1, 40), limit=st.integers(1, 7), segment=st.integers(20, 200))
def test_paging_either_way_gives_every_event_once(
    tmp_path_factory: pytest.TempPathFactory,
    out: list[tuple[int, str]],
    platform: list[tuple[int, str]],
    block: int,
    limit: int,
    segment: int,
) -> None:
    root = tmp_path_factory.mktemp("logs")
    store = LogStore(root)
    put(root, sorted(out), max_bytes=segment, max_segments=1000)
    put(root, sorted(platform), writer="platform", max_bytes=segment, max_segments=1000)
    if not out and not platform:
        return
    wanted = sorted(out + platform)
    usual, segments.BLOCK_BYTES = segments.BLOCK_BYTES, block
    try:
        for direction, token in (("nextForwardToken", "startFromHead"), ("nextBackwardToken", "x")):
            seen: list[tuple[int, str]] = []
            answer = get(store, limit=limit, startFromHead=token == "startFromHead")
            while answer["events"]:
                found = [(event["timestamp"], event["message"]) for event in answer["events"]]
                seen = seen + found if direction == "nextForwardToken" else found + seen
                answer = get(store, limit=limit, nextToken=answer[direction])
            assert [ms for ms, _ in seen] == [ms for ms, _ in wanted]
            assert sorted(seen) == wanted
    finally:
        segments.BLOCK_BYTES = usual
