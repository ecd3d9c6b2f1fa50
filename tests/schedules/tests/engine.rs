//! Every order of steps at the ways into the engine and out of it.

use phicandle_schedules::engine::{door_models, event_models, ticket_models};
use phicandle_schedules::{Bound, Clock, explore};

#[test]
fn each_event_reaches_one_reader_and_the_end_reaches_all() {
    explore(
        "two readers, one sender",
        Bound::Interruptions(4),
        Clock::Still,
        event_models::each_event_reaches_one_reader_and_the_end_reaches_all,
    );
}

#[test]
fn events_arrive_in_order() {
    explore("one reader, one sender", Bound::Every, Clock::Still, event_models::events_arrive_in_order);
}

#[test]
fn news_may_be_told_late() {
    explore(
        "a reader, a sender and a teller",
        Bound::Interruptions(4),
        Clock::Still,
        event_models::news_may_be_told_late,
    );
}

#[test]
fn a_cancel_is_heard_and_the_reader_gets_the_end() {
    explore(
        "reader, sender and canceller",
        Bound::Interruptions(4),
        Clock::Still,
        event_models::a_cancel_is_heard_and_the_reader_gets_the_end,
    );
}

#[test]
fn a_dropped_stream_is_noticed() {
    explore("a reader that leaves", Bound::Every, Clock::Still, event_models::a_dropped_stream_is_noticed);
}

#[test]
fn a_lost_sender_ends_every_wait() {
    explore(
        "a sender that leaves",
        Bound::Interruptions(4),
        Clock::Still,
        event_models::a_lost_sender_ends_every_wait,
    );
}

#[test]
fn a_waker_that_is_set_late_misses_nothing() {
    explore(
        "a waker and a sender",
        Bound::Every,
        Clock::Still,
        event_models::a_waker_that_is_set_late_misses_nothing,
    );
}

#[test]
fn a_waker_and_a_waiting_thread_are_both_told() {
    explore(
        "a waker, a waiting reader and a sender",
        Bound::Interruptions(4),
        Clock::Still,
        event_models::a_waker_and_a_waiting_thread_are_both_told,
    );
}

#[test]
fn there_are_never_more_inside_than_places() {
    explore(
        "three callers, two places",
        Bound::Interruptions(4),
        Clock::Still,
        ticket_models::there_are_never_more_inside_than_places,
    );
}

#[test]
fn a_request_and_a_close_both_end() {
    explore(
        "a request and a close",
        Bound::Interruptions(4),
        Clock::Still,
        door_models::a_request_and_a_close_both_end,
    );
}

#[test]
fn two_closes_both_end() {
    explore("two closes", Bound::Every, Clock::Still, door_models::two_closes_both_end);
}

#[test]
fn a_panic_is_told_to_all() {
    explore(
        "a panic and a request",
        Bound::Interruptions(3),
        Clock::Still,
        door_models::a_panic_is_told_to_all,
    );
}

#[test]
fn the_last_handle_may_go_first() {
    explore(
        "a reader whose engine goes",
        Bound::Interruptions(4),
        Clock::Still,
        door_models::the_last_handle_may_go_first,
    );
}

#[test]
fn an_errand_and_a_request_are_both_done() {
    explore(
        "an errand and a request",
        Bound::Interruptions(4),
        Clock::Still,
        door_models::an_errand_and_a_request_are_both_done,
    );
}

#[test]
fn an_errand_and_a_close_both_end() {
    explore(
        "an errand and a close",
        Bound::Interruptions(4),
        Clock::Still,
        door_models::an_errand_and_a_close_both_end,
    );
}

#[test]
fn an_errand_ends_when_the_worker_panics() {
    explore(
        "an errand and a panic",
        Bound::Interruptions(3),
        Clock::Still,
        door_models::an_errand_ends_when_the_worker_panics,
    );
}
