"""Test what differs between S3 and a folder: credentials, buckets, connections that break."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path

import botocore.exceptions as bx
import pytest

from skinbatch.config import StorageSettings
from skinbatch.errors import (
    ChangedError,
    ForbiddenError,
    NotFoundError,
    SkinbatchError,
    StoreError,
    UsageError,
)
from skinbatch.storage.client import mapped, s3_errors
from skinbatch.storage.locate import Locator, open_store
from skinbatch.storage.s3 import S3Store
from skinbatch.storage.traffic import TRAFFIC
from tests.conftest import S3Server
from tests.handler import Quiet


def test_a_bucket_that_does_not_exist_is_wrong_use(s3: S3Server) -> None:
    store = open_store("s3://no-such-bucket/x", s3.settings)
    for ask in (
        lambda: list(store.list()),
        lambda: store.get("k"),
        lambda: store.put("k", b""),
        store.probe_writable,
    ):
        with pytest.raises(UsageError, match="no such bucket"):
            ask()


def test_a_bucket_name_that_cannot_be_is_wrong_use(s3: S3Server) -> None:
    with pytest.raises(UsageError, match="Invalid bucket name"):
        list(open_store("s3://n$$/x", s3.settings).list())
    with pytest.raises(UsageError, match="names no bucket"):
        open_store("s3:///x", s3.settings)


def test_other_schemes_are_wrong_use() -> None:
    for uri in ("gs://bucket/x", "https://example.org/a.jpg", ""):
        with pytest.raises(UsageError):
            open_store(uri, StorageSettings())


def test_a_prefix_ends_at_a_slash(s3: S3Server) -> None:
    bucket = s3.bucket()
    for key in ("photos/a.jpg", "photos2/b.jpg", "photos/", "photos/sub/"):
        s3.client.put_object(Bucket=bucket, Key=key, Body=b"")
    for uri in (f"s3://{bucket}/photos", f"s3://{bucket}/photos/"):
        store = open_store(uri, s3.settings)
        assert [i.key for i in store.list()] == ["a.jpg"]
        assert (store.uri, store.uri_of("a.jpg")) == (
            f"s3://{bucket}/photos",
            f"s3://{bucket}/photos/a.jpg",
        )


def test_what_a_killed_probe_left_is_gone_after_the_next(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    store = open_store(f"s3://{bucket}/root", s3.settings)
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(S3Store, "delete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        store.probe_writable()
    (left,) = s3.client.list_objects_v2(Bucket=bucket)["Contents"]
    assert left["Key"].startswith("root/.tmp-") and list(store.list()) == []
    store.probe_writable()
    assert "Contents" not in s3.client.list_objects_v2(Bucket=bucket)


def test_clearing_leaves_the_uploads_of_others_alone(s3: S3Server) -> None:
    bucket = s3.bucket()
    s3.client.create_multipart_upload(Bucket=bucket, Key="root/a")
    assert open_store(f"s3://{bucket}/root", s3.settings).clear_temporary() == 0
    assert len(s3.client.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1


def test_without_credentials_the_message_says_how_to_give_some(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    settings = s3.settings.model_copy(update={"timeout_s": 59.0})  # a client of its own
    with pytest.raises(UsageError, match=r"AWS_ACCESS_KEY_ID.*profile.*anonymous"):
        open_store("s3://some-bucket/x", settings).get("k")
    with pytest.raises(UsageError, match="no such bucket"):
        open_store("s3://some-bucket/x", settings, anonymous=True).get("k")


def test_a_profile_that_does_not_exist_is_wrong_use(s3: S3Server) -> None:
    with pytest.raises(UsageError, match="nobody"):
        open_store("s3://some-bucket", StorageSettings(profile="nobody")).head("k")


def test_an_endpoint_from_the_environment_is_used(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(s3.settings.endpoint_url))
    store = open_store(f"s3://{s3.bucket()}", StorageSettings(timeout_s=58.0))
    store.put("k", b"x")
    assert store.get("k")[0] == b"x"


@pytest.mark.parametrize(
    ("code", "http", "kind"),
    [
        ("AccessDenied", 403, ForbiddenError),
        ("403", 403, ForbiddenError),
        ("InvalidObjectState", 403, ForbiddenError),
        ("InvalidAccessKeyId", 403, UsageError),
        ("SignatureDoesNotMatch", 403, UsageError),
        ("ExpiredToken", 400, StoreError),
        ("RequestTimeTooSkewed", 403, StoreError),
        ("PreconditionFailed", 412, ChangedError),
        ("NoSuchKey", 404, NotFoundError),
        ("KeyTooLongError", 400, NotFoundError),
        ("SlowDown", 503, StoreError),
    ],
)
def test_answers_mean_what_a_user_can_do_about_them(
    code: str, http: int, kind: type[SkinbatchError]
) -> None:
    answer = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": http}}
    assert type(mapped("s3://b/k", bx.ClientError(answer, "GetObject"))) is kind


def test_no_message_holds_a_secret() -> None:
    with pytest.raises(StoreError) as caught, s3_errors("s3://b/k"):
        raise bx.EndpointConnectionError(
            endpoint_url="http://user:hunter2@host/b/k?X-Amz-Signature=abc&x=1"
        )
    text = str(caught.value) + str(caught.value.__cause__) + repr(caught.value.__suppress_context__)
    assert "hunter2" not in text and "abc" not in text and "host" in text


class Breaking:
    """Serve one object and break off the first `breaks` answers, each after `gives` bytes or in its
    middle.

    `on_break` may change the object.
    """

    def __init__(
        self, data: bytes, breaks: int, heeds_if_match: bool = True, gives: int | None = None
    ) -> None:
        self.data, self.etag, self.breaks, self.gives = data, "v1", breaks, gives
        self.heeds_if_match = heeds_if_match
        self.on_break: Callable[[], None] = lambda: None
        self.ranges: list[str | None] = []


Servers = Callable[[type[Quiet]], str]


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Start a server that answers with a handler; return its URL."""
    started: list[ThreadingHTTPServer] = []

    def start(handler: type[Quiet]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def serve(s3: S3Server, servers: Servers) -> Callable[[Breaking], S3Store]:
    def start(world: Breaking) -> S3Store:
        class Handler(Quiet):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                world.ranges.append(wanted)
                if (
                    world.heeds_if_match
                    and self.headers.get("If-Match", f'"{world.etag}"') != f'"{world.etag}"'
                ):
                    self.send_response(412)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                match = re.match(r"bytes=(\d+)-(\d*)", wanted or "")
                first = int(match[1]) if match else 0
                body = world.data[first : int(match[2]) + 1 if match and match[2] else None]
                self.send_response(206 if match else 200)
                self.send_header("ETag", f'"{world.etag}"')
                self.send_header("Content-Length", str(len(body)))
                if match:
                    self.send_header(
                        "Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(world.data)}"
                    )
                self.end_headers()
                if world.breaks:
                    world.breaks -= 1
                    self.wfile.write(body[: len(body) // 2 if world.gives is None else world.gives])
                    world.on_break()
                    self.close_connection = True
                    return
                # a reader that has seen enough closes the connection
                with suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(body)

        return S3Store("bucket", "", StorageSettings(endpoint_url=servers(Handler), max_attempts=4))

    return start


DATA = bytes(range(256)) * 8000


def test_a_read_that_breaks_off_is_taken_up_where_it_broke(
    serve: Callable[[Breaking], S3Store],
) -> None:
    world = Breaking(DATA, breaks=2)
    assert serve(world).get("k")[0] == DATA
    half = len(DATA) // 2
    assert world.ranges == [
        None,
        f"bytes={half}-{len(DATA) - 1}",
        f"bytes={half + half // 2}-{len(DATA) - 1}",
    ]


def test_a_stream_and_a_range_are_taken_up_too(serve: Callable[[Breaking], S3Store]) -> None:
    with serve(Breaking(DATA, breaks=2)).stream("k") as stream:
        assert stream.read() == DATA
    assert serve(Breaking(DATA, breaks=1)).get_range("k", 100, 900_000) == DATA[100:900_000]


def test_a_connection_that_never_holds_is_an_error_not_a_short_object(
    serve: Callable[[Breaking], S3Store],
) -> None:
    with pytest.raises(StoreError, match="connection lost 4 times"):
        serve(Breaking(DATA, breaks=99)).get("k")


def test_a_stream_may_break_often_while_each_connection_brings_it_further(
    serve: Callable[[Breaking], S3Store],
) -> None:
    world = Breaking(DATA, breaks=99, gives=150_000)
    with serve(world).stream("k") as stream:
        assert stream.read() == DATA
    assert len(world.ranges) == 14  # max_attempts is 4
    assert serve(Breaking(DATA, breaks=99, gives=150_000)).get("k")[0] == DATA


def test_tries_that_bring_nothing_are_bounded_wherever_they_begin(
    serve: Callable[[Breaking], S3Store],
) -> None:
    world = Breaking(DATA, breaks=99, gives=300_000)
    world.on_break = lambda: setattr(world, "gives", 300_000 if len(world.ranges) < 3 else 0)
    with (
        serve(world).stream("k") as stream,
        pytest.raises(StoreError, match="lost 4 times at byte 900000"),
    ):
        stream.read()
    assert len(world.ranges) == 6  # three that brought bytes, of which the last one counts


def test_an_object_that_always_comes_whole_and_wrong_is_given_up(
    answers: Callable[..., S3Store],
) -> None:
    asked: list[None] = []
    wrong = {"ETag": '"x"', "x-amz-meta-skinbatch-sha256": "0" * 64}
    store = answers((200, wrong, b"abc"), on_answer=lambda: asked.append(None))
    with pytest.raises(StoreError, match=r"lost 3 times .*other bytes than were written"):
        store.get("k")
    assert len(asked) == 3


@pytest.mark.parametrize("heeds", [True, False])
def test_an_object_that_changes_between_two_halves_is_noticed(
    serve: Callable[[Breaking], S3Store], heeds: bool
) -> None:
    world = Breaking(DATA, breaks=1, heeds_if_match=heeds)
    world.on_break = lambda: setattr(world, "etag", "v2")
    with pytest.raises(ChangedError):
        serve(world).get("k")


def test_a_server_that_ignores_if_match_is_found_out_by_its_etag(
    serve: Callable[[Breaking], S3Store],
) -> None:
    with pytest.raises(ChangedError):
        serve(Breaking(DATA, breaks=0, heeds_if_match=False)).get("k", version="v0")


def test_a_locator_keeps_one_store_a_bucket(s3: S3Server) -> None:
    locator = Locator(s3.settings)
    first, key = locator.locate("s3://bucket/a/b c.jpg")
    assert (key, locator.locate("s3://bucket/x")[0] is first) == ("a/b c.jpg", True)
    assert locator.locate("s3://other/x")[0] is not first
    assert (
        locator.locate("/data/x.jpg")[1] == locator.locate("file:///data/x.jpg")[1] == "data/x.jpg"
    )


Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def answers(s3: S3Server, servers: Servers) -> Callable[..., S3Store]:
    """Return a store whose server gives these answers in turn, and then the last one for ever."""

    def start(*given: Answer, on_answer: Callable[[], object] = lambda: None) -> S3Store:
        left = list(given)

        class Handler(Quiet):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                on_answer()
                status, headers, body = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Transfer-Encoding" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

        return S3Store(
            "bucket", "p", StorageSettings(endpoint_url=servers(Handler), max_attempts=3)
        )

    return start


def page(key: str, end: str) -> Answer:
    item = f"<Contents><Key>p/{key}</Key><Size>1</Size><ETag>&quot;x&quot;</ETag></Contents>"
    return (
        200,
        {},
        f'<ListBucketResult xmlns="{XMLNS}"><Name>bucket</Name>{item}{end}</ListBucketResult>'.encode(),
    )


XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/"
LAST = "<IsTruncated>false</IsTruncated>"
FIRST_PAGE = page(
    "a", "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
)
WITHOUT_END = {
    "empty": (200, {}, b""),
    "says nothing": page("b", ""),
    "no token": page("b", "<IsTruncated>true</IsTruncated>"),
}


@pytest.mark.parametrize("broken", WITHOUT_END)
def test_a_listing_that_breaks_off_is_asked_for_again_and_never_taken_for_the_end(
    answers: Callable[..., S3Store], broken: str
) -> None:
    bad = WITHOUT_END[broken]
    assert [i.key for i in answers(FIRST_PAGE, bad, page("b", LAST)).list()] == ["a", "b"]
    with pytest.raises(StoreError, match="cut off 3 times"):
        list(answers(FIRST_PAGE, bad).list())


def deleted(code: str = "") -> Answer:
    error = f"<Error><Key>p/k</Key><Code>{code}</Code><Message>m</Message></Error>" if code else ""
    return 200, {}, f'<DeleteResult xmlns="{XMLNS}">{error}</DeleteResult>'.encode()


def test_one_of_many_that_a_store_could_not_delete_is_asked_for_again(
    answers: Callable[..., S3Store],
) -> None:
    answers(deleted("SlowDown"), deleted("InternalError"), deleted()).delete(["j", "k"])
    answers(deleted("NoSuchKey")).delete(["k"])
    with pytest.raises(StoreError, match="not deleted in 3 attempts: SlowDown"):
        answers(deleted("SlowDown")).delete(["k"])
    with pytest.raises(ForbiddenError):
        answers(deleted("AccessDenied")).delete(["k"])


def test_a_refusal_that_is_cut_off_is_asked_for_again(s3: S3Server, servers: Servers) -> None:
    asked: list[str] = []

    class Handler(Quiet):
        def do_GET(self) -> None:
            asked.append(self.path)
            whole = self.path.endswith("/gone") and len(asked) == 3
            body = b"<Error><Code>NoSuchKey</Code><Message>m</Message></Error>"
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if whole else body[:20])
            self.close_connection = True
            if not whole:
                self.reset()

    store = S3Store("bucket", "", StorageSettings(endpoint_url=servers(Handler), max_attempts=3))
    with pytest.raises(NotFoundError):
        store.get("gone")
    assert len(asked) == 3
    asked.clear()
    with pytest.raises(StoreError, match="connection lost 3 times"):
        store.get("k")
    assert len(asked) == 3


def test_an_object_without_a_length_is_not_taken_for_whole(answers: Callable[..., S3Store]) -> None:
    chunked = (200, {"Transfer-Encoding": "chunked", "ETag": '"x"'}, b"3\r\nabc\r\n0\r\n\r\n")
    with pytest.raises(StoreError, match="does not give its length"):
        answers(chunked).get("k")


def test_the_bytes_of_a_file_are_counted_too(s3: S3Server, tmp_path: Path) -> None:
    store = open_store(f"s3://{s3.bucket()}/x", s3.settings)
    file = tmp_path / "snapshot"
    file.write_bytes(b"123456789")
    before = TRAFFIC.all()
    store.put_file("a", file)
    assert TRAFFIC.since(before)["bytes_written"] == 9


@pytest.mark.parametrize("largest", [4 << 30, 1000])
def test_a_file_that_was_damaged_is_not_taken_for_what_was_written(
    largest: int, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skinbatch.storage.s3._LARGEST_PUT", largest)
    bucket = s3.bucket()
    store = open_store(f"s3://{bucket}/x", s3.settings)
    file = tmp_path / "snapshot"
    file.write_bytes(DATA)
    put = store.put_file("a", file)
    assert store.get("a", version=put.version)[0] == DATA

    kept = s3.client.head_object(Bucket=bucket, Key="x/a")["Metadata"]
    damaged = DATA[:-1] + b"?"
    s3.client.put_object(Bucket=bucket, Key="x/a", Body=damaged, Metadata=kept)
    hasty = open_store(f"s3://{bucket}/x", s3.settings.model_copy(update={"max_attempts": 2}))
    with pytest.raises(StoreError, match="other bytes than were written"):
        hasty.get("a")


def test_a_file_is_written_in_one_request_so_that_a_kill_leaves_no_part(
    s3: S3Server, tmp_path: Path
) -> None:
    store = open_store(f"s3://{s3.bucket()}/x", s3.settings)
    file = tmp_path / "large"
    file.write_bytes(bytes(20 << 20))
    before = TRAFFIC.all()
    store.put_file("a", file)
    assert TRAFFIC.since(before)["requests_put"] == 1


def test_a_file_comes_with_the_md5_by_which_a_server_refuses_damaged_bytes(
    s3: S3Server, servers: Servers, tmp_path: Path
) -> None:
    sent: list[tuple[str, bytes]] = []

    class Handler(Quiet):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append((self.headers["Content-MD5"], body))
            self.send_response(200)
            self.send_header("ETag", '"x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

    file = tmp_path / "snapshot"
    file.write_bytes(DATA)
    S3Store("bucket", "", StorageSettings(endpoint_url=servers(Handler))).put_file("a", file)
    assert sent == [(base64.b64encode(hashlib.md5(DATA).digest()).decode(), DATA)]


def test_requests_are_counted_as_they_are_billed_and_bytes_as_they_move(s3: S3Server) -> None:
    store = open_store(f"s3://{s3.bucket()}/x", s3.settings)
    before = TRAFFIC.all()
    store.put("a", b"12345")
    store.get("a")
    store.get_range("a", 1, 3)
    store.head("a")
    with suppress(NotFoundError):
        store.head("b")
    assert [info.key for info in store.list()] == ["a"]
    store.delete(["a"])
    counts = TRAFFIC.since(before)
    assert (counts["requests_get"], counts["requests_put"]) == (4, 2)
    assert (counts["bytes_read"], counts["bytes_written"]) == (7, 5)
