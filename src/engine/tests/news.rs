//! Readers learn of text by chores, which a model may do late, or not at all when an answer ends.

use super::*;

/// Chores that were put aside.
pub(super) enum Chores {
    /// Done at once.
    None,
    /// Done when the next pass begins.
    Late(Vec<Chore>),
    /// Never done.
    Idle(Vec<Chore>),
}

impl Chores {
    pub(super) fn of(script: Script) -> Self {
        match script {
            Script::Late => Self::Late(Vec::new()),
            Script::Idle => Self::Idle(Vec::new()),
            _ => Self::None,
        }
    }

    pub(super) fn put(&mut self, chore: Chore) {
        match self {
            Self::None => chore(),
            Self::Late(chores) | Self::Idle(chores) => chores.push(chore),
        }
    }

    /// A pass begins.
    pub(super) fn pass(&mut self) {
        if let Self::Late(chores) = self {
            chores.drain(..).for_each(|chore| chore());
        }
    }
}

#[test]
fn readers_get_every_text_when_they_are_told_late() {
    let engine = engine_of(Script::Late, 3, DEFAULT_MAX_QUEUE).0;
    let streams = ["a", "g", "m"]
        .map(|prompt| engine.submit(request(prompt, |params| params.max_tokens = Some(20))).unwrap());
    std::thread::scope(|scope| {
        let readers: Vec<_> = streams.iter().map(|stream| scope.spawn(|| read(stream).0)).collect();
        let texts: Vec<String> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert_eq!(texts, ["bcdefghijklmnopqrstu", "hijklmnopqrstuvwxyza", "nopqrstuvwxyzabcdefg"]);
    });
}

#[test]
fn text_is_told_of_before_the_end_and_nothing_after_it() {
    let engine = engine(Script::Late);
    let stream = engine.submit(request("a", |params| params.max_tokens = None)).unwrap();
    // One who only looks when told, as an event loop does.
    let (told, tellings) = channel();
    stream.on_event(Box::new(move |ended| told.send(ended).unwrap()));
    let (mut events, mut early, mut ended) = (Vec::new(), 0, false);
    while !ended {
        ended = tellings.recv_timeout(SOON).unwrap();
        early += usize::from(!ended);
        while let Poll::Event(event) = stream.next(Duration::ZERO) {
            events.push(event);
        }
    }
    assert!(matches!(events.pop(), Some(Event::Finish(_))));
    let texts = events.iter().map(|event| match event {
        Event::Chunk(chunk) => chunk.text.len(),
        other => panic!("not a text: {other:?}"),
    });
    assert_eq!(texts.sum::<usize>(), CONTEXT - 1);
    assert!(early > 0, "a millisecond for each of {CONTEXT} passes");
    drop(engine);
    assert!(tellings.try_recv().is_err());
}

#[test]
fn the_end_tells_of_all() {
    let engine = engine(Script::Idle);
    let stream = engine.submit(request("a", |params| params.max_tokens = Some(5))).unwrap();
    assert_eq!(read(&stream).0, "bcdef");
    let stream = engine.submit(request("a", |params| params.max_tokens = None)).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    stream.cancel();
    let (text, last) = read(&stream);
    assert_eq!(finish(last).reason, FinishReason::Cancelled);
    assert!("bcdefghijklmnopqrstuvwxyz".repeat(3).starts_with(&text[..text.len().min(20)]));
}
