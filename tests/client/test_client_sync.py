from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import pytest

from gemd.client import (
    AuthenticationError,
    Client,
    DaemonUnreachableError,
    DeadlineExpiredError,
    Decision,
    Delta,
    DoesNotFitError,
    EngineError,
    Finished,
    GemdClientError,
    GenerationOptions,
    InvalidRequestError,
    Loading,
    Message,
    Model,
    ModelNotFoundError,
    Queued,
    QueueFullError,
    RequestCancelledError,
    RetryPolicy,
    Sampling,
    Started,
)
from gemd.v1 import (
    daemon_service_pb2,
    decision_pb2,
    event_pb2,
    generation_pb2,
    generation_service_pb2,
    model_pb2,
)
from tests.support.daemon_says import (
    abort,
    answer,
    decision,
    delta,
    finished,
    loading,
    model,
    operation,
)
from tests.support.fake_daemon import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Events = Iterator[generation_service_pb2.GenerateResponse]

QUICK = RetryPolicy(attempts=3, first_delay=0.001, longest_delay=0.05)


@pytest.fixture
def client(daemon: FakeDaemon, socket: Path) -> Iterator[Client]:
    """A client with short retries."""
    with Client(socket, name="test/1", retry=QUICK, random=lambda: 0.5) as connected:
        yield connected


def unavailable(
    reason: str = "ENGINE_CRASHED", retry_after: float | None = None
) -> Callable[[grpc.ServicerContext], NoReturn]:
    """A failure for `Script.failures`."""
    return lambda context: abort(
        context, grpc.StatusCode.UNAVAILABLE, reason, "it went away", retry_after=retry_after
    )


def test_a_chat_streams_typed_events(daemon: FakeDaemon, client: Client) -> None:
    """Every event arrives in order, as a value of its own type with its proto message."""
    generation = client.chat("What is the capital of France?")
    events = list(generation)
    assert [type(event) for event in events] == [Started, Delta, Delta, Finished]
    first = events[0]
    assert isinstance(first, Started)
    assert (first.model, first.cached_tokens, first.seed) == ("smollm2-135m", 5, 1234)
    assert isinstance(first.raw, generation_pb2.Started)
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.finish_reason == "STOP"
    assert last.usage.completion_tokens == 8
    assert last.timings.first_token == pytest.approx(0.12)
    assert last.timings.load is None
    assert generation.answer().text == "The capital of France is Paris."


def test_the_text_of_an_answer_can_be_had_at_once(client: Client) -> None:
    """`text()` reads the stream and joins the pieces."""
    assert client.chat("Capital of France?").text() == "The capital of France is Paris."


def test_a_request_says_what_was_asked_for_and_nothing_else(
    daemon: FakeDaemon, client: Client
) -> None:
    """Unset sampling fields stay unset, and 0 is sent as 0."""
    options = GenerationOptions(
        model="smollm2-135m",
        mode="best",
        sampling=Sampling(temperature=0.0, top_k=0, stop=("\n",), logit_bias={7: -1.0}),
    )
    client.chat([Message("system", "Be brief."), Message("user", "Hi")], options).text()
    (request,) = daemon.asked("Generate")
    assert [part.role for part in request.chat.messages] == [
        generation_pb2.Message.ROLE_SYSTEM,
        generation_pb2.Message.ROLE_USER,
    ]
    assert request.chat.messages[1].parts[0].text == "Hi"
    assert request.model == "smollm2-135m"
    assert request.mode == generation_pb2.MODE_BEST
    assert request.client == "test/1"
    sampling = request.sampling
    assert sampling.HasField("temperature")
    assert sampling.HasField("top_k")
    assert not sampling.HasField("top_p")
    assert not sampling.HasField("max_tokens")
    assert list(sampling.stop) == ["\n"]
    assert dict(sampling.logit_bias) == {7: -1.0}


def test_a_text_and_token_ids_go_without_a_template(daemon: FakeDaemon, client: Client) -> None:
    """`generate` continues what it is given."""
    client.generate("Once upon").text()
    client.generate([1, 2, 3], GenerationOptions(tier="strong")).text()
    text, tokens = daemon.asked("Generate")
    assert text.text == "Once upon"
    assert list(tokens.tokens.ids) == [1, 2, 3]
    assert tokens.tier == model_pb2.TIER_STRONG


def test_a_model_and_a_tier_exclude_each_other(client: Client) -> None:
    """Naming both is a mistake of the program, found before anything is sent."""
    with pytest.raises(ValueError, match="not both"):
        client.chat("Hi", GenerationOptions(model="a", tier="fast"))


def test_leaving_a_stream_cancels_its_call(daemon: FakeDaemon, client: Client) -> None:
    """The daemon learns at once that nobody reads any more."""
    go_on = threading.Event()

    def endless(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("one")
        go_on.wait()

    daemon.script.generate = endless
    with client.chat("Hi") as generation:
        assert next(generation) is not None
    assert daemon.stream_ended.wait(5)
    assert generation.text_so_far == "one"
    assert list(generation) == []
    go_on.set()


def test_unavailable_before_the_first_text_is_retried(daemon: FakeDaemon, client: Client) -> None:
    """Two failures go unnoticed; events that came before the text may repeat."""
    failures = [unavailable(), unavailable(retry_after=0.01)]

    def crashes_twice(request: object, context: grpc.ServicerContext) -> Events:
        yield generation_service_pb2.GenerateResponse(loading=loading(1, 2))
        if failures:
            failures.pop(0)(context)
        yield from answer("Paris")(request, context)

    daemon.script.generate = crashes_twice
    events = list(client.chat("Hi"))
    assert [type(event) for event in events] == [
        Loading,
        Loading,
        Loading,
        Started,
        Delta,
        Finished,
    ]
    assert len(daemon.asked("Generate")) == 3


def test_unavailable_for_too_long_is_an_error(daemon: FakeDaemon, client: Client) -> None:
    """After the last attempt the daemon's own words arrive."""
    daemon.script.failures = [unavailable() for _ in range(9)]
    with pytest.raises(EngineError, match="it went away"):
        client.chat("Hi").text()
    assert len(daemon.asked("Generate")) == 3


def test_a_long_wait_is_left_to_the_caller(daemon: FakeDaemon, client: Client) -> None:
    """If the daemon says to come back later than we would wait, it is said, not waited."""
    daemon.script.failures = [unavailable("SHUTTING_DOWN", retry_after=60)]
    with pytest.raises(GemdClientError) as caught:
        client.info()
    assert caught.value.retry_after == 60
    assert len(daemon.asked("GetInfo")) == 1


def test_a_crash_after_the_first_text_is_not_retried(daemon: FakeDaemon, client: Client) -> None:
    """The reader keeps the text that it has, gets the error, and the stream is over."""

    def crashes(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("The capital")
        abort(
            context,
            grpc.StatusCode.ABORTED,
            "ENGINE_CRASHED",
            "the worker of smollm2-135m ended",
            why="signal 9",
            advice=["gemctl status"],
            metadata={"signal": "9"},
        )

    daemon.script.generate = crashes
    generation = client.chat("Hi")
    with pytest.raises(EngineError) as caught:
        generation.text()
    error = caught.value
    assert (error.reason, error.code, error.why) == ("ENGINE_CRASHED", "ABORTED", "signal 9")
    assert error.advice == ("gemctl status",)
    assert error.metadata == {"signal": "9"}
    assert generation.text_so_far == "The capital"
    assert list(generation) == []
    assert len(daemon.asked("Generate")) == 1


def test_unavailable_after_the_first_text_is_not_retried(
    daemon: FakeDaemon, client: Client
) -> None:
    """Even UNAVAILABLE is final once the reader holds text."""

    def crashes(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("The capital")
        unavailable()(context)

    daemon.script.generate = crashes
    with pytest.raises(EngineError):
        client.chat("Hi").text()
    assert len(daemon.asked("Generate")) == 1


@pytest.mark.parametrize(
    "code,reason,kind",
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG", InvalidRequestError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", QueueFullError),
        (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_TOO_LARGE", DoesNotFitError),
        (grpc.StatusCode.CANCELLED, "CANCELLED", RequestCancelledError),
        (grpc.StatusCode.INTERNAL, "A_REASON_OF_TOMORROW", GemdClientError),
    ],
)
def test_a_reason_becomes_a_class(
    daemon: FakeDaemon,
    client: Client,
    code: grpc.StatusCode,
    reason: str,
    kind: type[GemdClientError],
) -> None:
    """Callers branch on classes; the reason stays, also one that is newer than we are."""
    daemon.script.failures = [lambda context: abort(context, code, reason, "no")]
    with pytest.raises(kind) as caught:
        client.chat("Hi").text()
    assert type(caught.value) is kind
    assert caught.value.reason == reason


def test_a_deadline_ends_a_generation(daemon: FakeDaemon, client: Client) -> None:
    """The deadline travels to the daemon, and its passing has an error of its own."""
    go_on = threading.Event()

    def slow(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("one")
        context.add_callback(go_on.set)
        go_on.wait()

    daemon.script.generate = slow
    with pytest.raises(DeadlineExpiredError) as caught:
        client.chat("Hi", deadline=0.2).text()
    assert str(caught.value) == "the deadline of 0.2 s passed before the answer was complete"
    assert caught.value.metadata["deadline_seconds"] == "0.2"
    (seen,) = daemon.deadlines
    # gRPC rounds a timeout up when it writes it into a header.
    assert seen is not None
    assert seen <= 0.25


def test_every_unary_call_has_a_deadline(daemon: FakeDaemon, client: Client) -> None:
    """A daemon that hangs cannot hang its clients for ever."""
    client.info()
    client.models()
    client.embed(["a"])
    client.unload("smollm2-135m")
    assert len(daemon.deadlines) == 4
    assert all(seen is not None and seen < 601 for seen in daemon.deadlines)


def test_no_daemon_is_an_error_of_its_own(socket: Path) -> None:
    """Without a socket it is said that there is none, and how to get one."""
    with Client(socket, retry=QUICK) as client, pytest.raises(DaemonUnreachableError) as caught:
        client.info()
    assert str(socket) in caught.value.message
    assert caught.value.reason == "DAEMON_UNREACHABLE"
    assert caught.value.advice


def test_a_daemon_that_dies_mid_stream_is_unreachable(socket: Path) -> None:
    """What had arrived is kept; the error says that the connection was lost."""
    go_on = threading.Event()

    def stalls(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("one")
        go_on.wait()

    daemon = FakeDaemon(socket)
    daemon.script.generate = stalls
    with daemon, Client(socket, retry=QUICK) as client:
        generation = client.chat("Hi")
        next(generation)
        daemon.stop()
        with pytest.raises((DaemonUnreachableError, RequestCancelledError)):
            next(generation)
        go_on.set()
    assert generation.text_so_far == "one"


def test_a_connection_lost_during_an_answer_is_told_from_no_daemon(
    daemon: FakeDaemon, socket: Path, client: Client
) -> None:
    """What gRPC says itself is kept for programs; people read what happened."""

    def vanishes(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("one")
        context.abort(grpc.StatusCode.UNAVAILABLE, "Stream removed (Socket closed)")

    daemon.script.generate = vanishes
    with pytest.raises(DaemonUnreachableError) as caught:
        client.chat("Hi").text()
    error = caught.value
    assert error.message == f"the connection to gemd at {socket} was lost during the answer"
    assert error.why == "the daemon has ended, or was killed"
    assert error.advice == ("gemctl status",)
    assert error.metadata["detail"] == "Stream removed (Socket closed)"
    assert len(daemon.asked("Generate")) == 1


def test_a_stream_that_is_dropped_cancels_its_call(daemon: FakeDaemon, client: Client) -> None:
    """Leaving the loop early is enough, as the README has it, also within a generator."""

    def endless(request: object, context: grpc.ServicerContext) -> Events:
        go_on = threading.Event()
        context.add_callback(go_on.set)
        yield delta("one")
        go_on.wait()

    daemon.script.generate = endless
    for _ in client.chat("Hi"):
        break
    assert daemon.stream_ended.wait(5)
    daemon.stream_ended.clear()
    pieces = (event for event in client.chat("Hi"))
    next(pieces)
    del pieces
    assert daemon.stream_ended.wait(5)


def test_an_interrupt_cancels_the_call(daemon: FakeDaemon, client: Client) -> None:
    """What stands in the body of the loop may raise anything."""

    def endless(request: object, context: grpc.ServicerContext) -> Events:
        go_on = threading.Event()
        context.add_callback(go_on.set)
        yield delta("one")
        go_on.wait()

    daemon.script.generate = endless

    def interrupted() -> None:
        with client.chat("Hi") as generation:
            next(generation)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert daemon.stream_ended.wait(5)


def test_a_stream_closed_while_it_begins_is_closed(
    daemon: FakeDaemon, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may close it when there is no call yet that could be cancelled."""

    def endless(request: object, context: grpc.ServicerContext) -> Events:
        go_on = threading.Event()
        context.add_callback(go_on.set)
        go_on.wait()
        yield finished()

    daemon.script.generate = endless
    generation = client.chat("Hi")
    begin = client._transport.stream

    def begin_late(*arguments: Any) -> Any:
        generation.close()
        return begin(*arguments)

    monkeypatch.setattr(client._transport, "stream", begin_late)
    assert list(generation) == []


@pytest.mark.parametrize(
    "sampling,says",
    [
        (Sampling(top_k=-1), "sampling.top_k cannot be -1"),
        (Sampling(max_tokens=2**40), "sampling.max_tokens cannot be"),
        (Sampling(logit_bias={-1: 1.0}), "sampling.logit_bias cannot be"),
        (Sampling(stop=(7,)), "sampling.stop cannot be"),  # type: ignore[arg-type] # on purpose
    ],
)
def test_a_value_that_no_field_holds_is_named(
    client: Client, sampling: Sampling, says: str
) -> None:
    """Before anything is sent, with the field that it was meant for."""
    with pytest.raises(ValueError, match=says):
        client.chat("Hi", GenerationOptions(sampling=sampling))


def test_one_stop_text_is_not_its_letters(daemon: FakeDaemon, client: Client) -> None:
    """A string is a sequence of strings, which nobody ever means."""
    client.chat("Hi", GenerationOptions(sampling=Sampling(stop="END"))).text()
    assert list(daemon.asked("Generate")[0].sampling.stop) == ["END"]


def test_a_prompt_of_something_else_is_refused(daemon: FakeDaemon, client: Client) -> None:
    """Nothing is left out in silence."""
    with pytest.raises(TypeError, match="messages only"):
        client.count_tokens(["Hi"])  # type: ignore[arg-type] # on purpose
    with pytest.raises(TypeError, match="messages only"):
        client.score([Message("user", "Hi"), 7], ["x"])  # type: ignore[arg-type] # on purpose
    with pytest.raises(ValueError, match="it can be system, user, assistant"):
        client.chat([Message("tool", "Hi")])  # type: ignore[arg-type] # on purpose
    assert daemon.requests == []


def test_tcp_works_with_the_token_and_not_without() -> None:
    """The loopback port wants the daemon's token with every call."""
    with FakeDaemon(token="secret") as daemon:
        address = f"127.0.0.1:{daemon.port}"
        with Client(address, token="secret") as client:
            assert client.info().version == "0.1.0"
        with Client(address) as client, pytest.raises(AuthenticationError):
            client.info()


def test_models_come_from_all_pages(daemon: FakeDaemon, client: Client) -> None:
    """A list is whole however the daemon cuts it."""
    daemon.script.models = {f"m{number}": model(f"m{number}") for number in range(5)}
    daemon.script.page_size = 2
    assert [one.id for one in client.models()] == ["m0", "m1", "m2", "m3", "m4"]
    assert client.models(["READY"]) == []


def test_a_model_is_described(client: Client) -> None:
    """What the common path needs of a model is there without looking into the proto."""
    found = client.model("smollm2-135m")
    assert (found.state, found.on_disk, found.source) == ("ON_DISK", True, "python-package")
    assert (found.size_bytes, found.quantization) == (98_000_000, "Q4_1")
    assert found.failure is None
    with pytest.raises(ModelNotFoundError) as caught:
        client.model("smolm")
    assert caught.value.metadata == {"model": "smolm"}
    assert caught.value.advice[0] == "gemctl list"


def test_a_load_reports_progress_and_ends_with_the_model(client: Client) -> None:
    """Loading events first, the READY model last."""
    events = list(client.load("smollm2-135m", context_length=2048))
    assert [type(event) for event in events] == [Loading, Loading, Loading, Model]
    assert client.load_and_wait("smollm2-135m").state == "READY"
    assert client.unload("smollm2-135m", drain_timeout=0).state == "ON_DISK"
    assert client.pin("smollm2-135m").pinned


def test_a_pull_can_be_followed_to_its_end(daemon: FakeDaemon, client: Client) -> None:
    """Snapshots arrive in order, and `wait` returns the last."""
    daemon.script.pull = [
        operation("RUNNING", current=0),
        operation("RUNNING", current=500, rate_bytes_per_second=100),
        operation("SUCCEEDED", current=1000),
    ]
    begun = client.pull("smollm2-135m")
    snapshots = list(client.watch(begun.name))
    assert [one.current_bytes for one in snapshots] == [0, 500, 1000]
    assert [one.done for one in snapshots] == [False, False, True]
    assert snapshots[1].rate == 100
    assert client.wait(begun.name).state == "SUCCEEDED"
    assert [one.name for one in client.operations()] == ["operations/7"] * 3
    assert client.cancel(begun.name).state == "CANCELLING"


def test_a_failed_operation_raises_its_error(daemon: FakeDaemon, client: Client) -> None:
    """What ended the operation is raised as if the call itself had failed."""
    snapshot = operation("FAILED")
    snapshot.error.reason = "DISK_FULL"
    snapshot.error.message = "4 GiB are missing"
    snapshot.error.advice.append("gemctl rm x")
    daemon.script.pull = [snapshot]
    with pytest.raises(DoesNotFitError) as caught:
        client.wait("operations/7")
    assert caught.value.advice == ("gemctl rm x",)
    daemon.script.pull = [operation("CANCELLED")]
    with pytest.raises(RequestCancelledError):
        client.wait("operations/7")


def test_the_other_calls_return_plain_values(daemon: FakeDaemon, client: Client) -> None:
    """Embeddings, scores, counts, status, devices: tuples and numbers."""
    embeddings = client.embed(["a b", "c"], model="smollm2-135m")
    assert embeddings.vectors == ((0.0, 1.0), (0.0, 1.0))
    assert embeddings.tokens == (2, 1)
    scores = client.score([Message("user", "Capital?")], ["Paris", [5, 6]])
    assert [one.sum_logprob for one in scores.scores] == [-1.5, -1.5]
    assert scores.scores[0].tokens[0].token == b" Paris"
    assert client.count_tokens("a b c", include_token_ids=True).token_ids == (1, 2, 3)
    status = client.status()
    assert status.sequence == 12345678901234
    assert (status.running_requests, status.queued_requests) == (1, 2)
    assert status.conditions[0].advice == ("gemctl devices",)
    (device,) = client.devices()
    assert (device.id, device.kind, device.reserved_bytes) == ("cpu", "CPU", 0)
    assert device.ours_bytes == 200 * 2**20
    assert client.info().uptime == 4000.0
    assert client.drain(grace=1.5).finished_requests == 1
    assert daemon.asked("Drain")[0].timeout.nanos == 500_000_000


def test_decisions_are_plain_values(daemon: FakeDaemon, client: Client) -> None:
    """With reasons, alternatives and the memory before and after."""
    daemon.script.decisions = [decision(2, confirmed=False), decision(1)]
    pending, made = client.explain(model="m", kinds=["evict", "LOAD"])
    (asked,) = daemon.asked("Explain")
    assert (asked.model, asked.page_size) == ("m", 100)
    assert list(asked.kinds) == [
        decision_pb2.Decision.KIND_EVICT,
        decision_pb2.Decision.KIND_LOAD,
    ]
    assert (made.sequence, made.kind, made.model, made.device) == (1, "EVICT", "m", "cpu")
    assert (made.time, made.effect, made.inputs) == (86400 * 365, 0.35, {"loss_seconds": 0.5})
    assert (made.reasons[0].code, made.reasons[0].metadata) == (
        "CHEAPEST",
        {"idle_seconds": "30.000"},
    )
    assert [(one.subject, one.cost) for one in made.alternatives] == [("o", 2.5), ("p", None)]
    (change,) = made.memory
    assert (change.device, change.budget_bytes) == ("cpu", 4 * 2**30)
    assert (change.before_bytes, change.after_bytes) == (2 * 2**30, 2**30)
    assert (pending.effect, pending.memory[0].after_bytes) == (None, None)


def test_decisions_come_from_as_many_pages_as_are_wanted(
    daemon: FakeDaemon, client: Client
) -> None:
    """No more than the limit, and no call for what nobody wants."""
    daemon.script.decisions = [decision(number) for number in range(9, 0, -1)]
    daemon.script.page_size = 2
    assert [one.sequence for one in client.explain(limit=3)] == [9, 8, 7]
    assert len(daemon.asked("Explain")) == 2
    assert len(client.explain()) == 9


def test_one_subject_is_explained(client: Client) -> None:
    """A model on one device is not something that can be asked for."""
    with pytest.raises(ValueError, match="one subject"):
        client.explain(model="m", device="cpu")


def test_a_decision_is_an_event(daemon: FakeDaemon, client: Client) -> None:
    """It arrives as the same value that `explain` returns."""
    daemon.script.events = [
        daemon_service_pb2.WatchEventsResponse(
            event=event_pb2.Event(sequence=8, decision=decision(3))
        )
    ]
    (event,) = client.events(kinds=["decision"])
    assert event.payload == Decision.of(decision(3))
    assert list(daemon.asked("WatchEvents")[0].types) == [event_pb2.Event.TYPE_DECISION]


def test_events_carry_the_resource_after_the_change(daemon: FakeDaemon, client: Client) -> None:
    """A payload is converted where there is a class for it, and kept as proto elsewhere."""
    daemon.script.events = [
        daemon_service_pb2.WatchEventsResponse(event=event_pb2.Event(sequence=8, model=model("a"))),
        daemon_service_pb2.WatchEventsResponse(
            event=event_pb2.Event(sequence=9, loading=loading(1, 2))
        ),
    ]
    events = list(client.events(kinds=["model", "loading"]))
    assert [(one.sequence, one.kind) for one in events] == [(8, "model"), (9, "loading")]
    assert isinstance(events[0].payload, Model)
    assert isinstance(events[1].payload, model_pb2.Loading)
    (request,) = daemon.asked("WatchEvents")
    assert request.initial_state
    assert list(request.types) == [event_pb2.Event.TYPE_MODEL, event_pb2.Event.TYPE_LOADING]


def test_events_newer_than_the_client_are_skipped(daemon: FakeDaemon, client: Client) -> None:
    """A message without an event that we know is no event, and no error."""

    def futuristic(request: object, context: grpc.ServicerContext) -> Events:
        yield generation_service_pb2.GenerateResponse()
        queued = model_pb2.Queued(model="models/a", position=2, reason="WORKER_BUSY")
        yield generation_service_pb2.GenerateResponse(queued=queued)
        yield finished()

    daemon.script.generate = futuristic
    first, second = list(client.chat("Hi"))
    assert isinstance(first, Queued)
    assert (first.model, first.position, first.estimated_wait) == ("a", 2, None)
    assert isinstance(second, Finished)


def test_a_stream_without_an_end_is_an_error(daemon: FakeDaemon, client: Client) -> None:
    """An answer that never said how it ended is not passed off as complete."""

    def cut_short(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("half")

    daemon.script.generate = cut_short
    with pytest.raises(GemdClientError, match="without a Finished"):
        client.chat("Hi").text()
