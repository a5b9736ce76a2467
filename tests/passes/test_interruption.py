import signal
import threading

import pytest

from prunec.passes import interruption
from prunec.passes.interruption import (
    Stopped,
    ask_to_stop,
    asked_to_stop,
    ended_at_request,
    remove_leftovers,
    removed_at_the_latest,
    stop_if_asked,
    stop_where_it_came,
    stoppable,
    stoppable_anywhere,
    stopping_together,
)


@pytest.fixture(autouse=True)
def nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "_request", interruption._Request())


def test_the_first_signal_counts_until_the_work_stops() -> None:
    stop_if_asked()
    ask_to_stop(signal.SIGTERM)
    ask_to_stop(signal.SIGINT)
    assert asked_to_stop() == signal.SIGTERM
    with pytest.raises(Stopped, match="SIGTERM") as caught:
        stop_if_asked()
    assert caught.value.number == signal.SIGTERM
    assert isinstance(caught.value, KeyboardInterrupt), "nothing that catches Exception may keep it"


def test_a_request_from_another_thread_stops_a_loop() -> None:
    seen = []
    with pytest.raises(Stopped):
        for item in stoppable(range(5)):
            seen.append(item)
            if item == 2:
                thread = threading.Thread(target=ask_to_stop, args=(signal.SIGINT,))
                thread.start()
                thread.join()
    assert seen == [0, 1, 2]


def test_a_request_in_a_finaliser_is_not_lost() -> None:
    class Moment:
        def __del__(self) -> None:
            ask_to_stop(signal.SIGINT)

    Moment()
    with pytest.raises(Stopped):
        stop_if_asked()


def test_processes_that_train_together_stop_at_their_own_places() -> None:
    ask_to_stop(signal.SIGINT)
    with stopping_together():
        stop_if_asked()
        assert list(stoppable("ab")) == ["a", "b"]
    with pytest.raises(Stopped):
        stop_if_asked()


def test_helpers_end_at_once_those_that_begin_too_late_included() -> None:
    ended: list[str] = []
    with ended_at_request(lambda: ended.append("before")):
        pass
    with ended_at_request(lambda: ended.append("first")):
        ask_to_stop(signal.SIGINT)
        assert ended == ["first"]
        with ended_at_request(lambda: ended.append("second")):
            assert ended == ["first", "second"]


def test_leftovers_are_removed_in_the_reverse_order() -> None:
    removed: list[str] = []
    with removed_at_the_latest(lambda: removed.append("lock")), removed_at_the_latest(lambda: removed.append("folder")):
        remove_leftovers()
    assert removed == ["folder", "lock"]
    remove_leftovers()
    assert removed == ["folder", "lock"]


def test_some_work_stops_where_the_signal_comes_and_is_cleaned_up_undisturbed() -> None:
    stop_where_it_came(signal.SIGINT)  # not where it isn't allowed
    assert asked_to_stop()
    with pytest.raises(Stopped), stoppable_anywhere():
        pytest.fail("entered")


def test_a_stop_is_raised_once_and_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    class Moment:
        def __del__(self) -> None:
            stop_where_it_came(signal.SIGINT)

    lost: list[BaseException | None] = []
    monkeypatch.setattr("sys.unraisablehook", lambda what: lost.append(what.exc_value))
    with pytest.raises(Stopped), stoppable_anywhere():
        Moment()
        stop_where_it_came(signal.SIGINT)
        assert [type(error) for error in lost] == [Stopped]


def test_what_is_raised_where_it_came_ends_the_work() -> None:
    with pytest.raises(Stopped), stoppable_anywhere():
        stop_where_it_came(signal.SIGTERM)
        pytest.fail("went on")
    stop_where_it_came(signal.SIGTERM)
