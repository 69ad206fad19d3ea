"""Events are a mailbox: the oldest untaken match since the mark, in any order."""

from pytest_maqet.qemu.events import Mailbox


def _mailbox(*names: str) -> Mailbox:
    mailbox = Mailbox()
    for name in names:
        mailbox.put({"event": name, "data": {"guest": True}, "timestamp": {}})
    return mailbox


def test_events_may_be_asked_for_in_another_order_than_they_came():
    mailbox = _mailbox("POWERDOWN", "SHUTDOWN")
    for name in ("SHUTDOWN", "POWERDOWN"):
        found = mailbox.find(name, {})
        assert found is not None, f"{name} was not found, though nobody has taken it"
        mailbox.take(found)


def test_a_taken_event_is_not_given_twice():
    mailbox = _mailbox("RESET", "RESET")
    first = mailbox.find("RESET", {})
    mailbox.take(first)
    second = mailbox.find("RESET", {})
    assert (first.number, second.number) == (0, 1), "the oldest untaken one comes next"
    mailbox.take(second)
    assert mailbox.find("RESET", {}) is None, "both are taken, and yet a third was found"


def test_the_mark_hides_what_came_before_it():
    mailbox = _mailbox("RESET")
    mailbox.mark()
    assert mailbox.find("RESET", {}) is None, "an event of the test before was given to this one"
    assert mailbox.find("RESET", {}, since=0) is not None, 'since="start" must see everything'


def test_data_must_match_but_may_have_more():
    mailbox = Mailbox()
    mailbox.put({"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}})
    assert mailbox.find("SHUTDOWN", {"guest": True})
    assert not mailbox.find("SHUTDOWN", {"guest": False}), "another value must not match"
    assert not mailbox.find("SHUTDOWN", {"absent": None}), "a missing member is no match, not even with None"


def test_an_event_without_data_is_matched_by_its_name():
    mailbox = Mailbox()
    mailbox.put({"event": "STOP"})
    assert mailbox.find("STOP", {})
    assert [event.name for event in mailbox.untaken()] == ["STOP"]
