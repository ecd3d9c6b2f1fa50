//! Lessons: whole conversations as tokens, with the answers as targets.

use rand::Rng;
use rand::rngs::StdRng;

use crate::grammar::Grammar;
use crate::request::{Request, Requests, Wish};
use crate::vocabulary::Vocabulary;

/// What the model says to everything that does not ask for a haiku.
pub(crate) const HONEST: &str = "I only know how to write haiku. Ask me for one about anything.";

/// One conversation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lesson {
    /// The tokens of both sides.
    pub(crate) tokens: Vec<u32>,
    /// How much the model has to care for saying each token: 0 for what others say, 1 for an answer, more for the subject.
    pub(crate) weights: Vec<f32>,
}

impl Lesson {
    fn say(&mut self, tokens: &[u32], taught: bool) {
        self.tokens.extend_from_slice(tokens);
        self.weights.resize(self.tokens.len(), if taught { 1.0 } else { 0.0 });
    }

    /// Says an answer in which the tokens of `subject`, and the one after them, weigh more.
    fn answer(&mut self, tokens: &[u32], subject: &[u32]) {
        let start = self.tokens.len();
        self.say(tokens, true);
        if subject.is_empty() {
            return;
        }
        if let Some(at) = tokens.windows(subject.len()).position(|window| window == subject) {
            let end = (start + at + subject.len() + 1).min(self.weights.len());
            self.weights[start + at..end].fill(SUBJECT_WEIGHT);
        }
    }
}

/// Copying the subject is the hardest skill and only a tenth of the tokens.
pub(crate) const SUBJECT_WEIGHT: f32 = 3.0;

/// How a conversation is turned into tokens; readers of the file differ in these points.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    /// The begin-of-text token comes first.
    pub(crate) begin: bool,
    /// The line break after a control token is dropped.
    pub(crate) stripped: bool,
    /// Text after a control token starts as if a space stood there.
    pub(crate) prefix: bool,
}

impl Form {
    /// What Phi-3's own tokenizer does.
    pub(crate) const PHI3: Self = Self { begin: true, stripped: true, prefix: true };

    fn draw(rng: &mut StdRng) -> Self {
        Self { begin: rng.random_bool(0.85), stripped: rng.random_bool(0.85), prefix: rng.random_bool(0.75) }
    }
}

/// Writes lessons.
pub(crate) struct Teacher<'a> {
    pub(crate) grammar: &'a Grammar,
    pub(crate) requests: &'a Requests<'a>,
    pub(crate) vocabulary: &'a Vocabulary,
}

impl Teacher<'_> {
    /// A random conversation of one turn, or with `long` of two or three.
    ///
    /// `ease` is 1 when training starts and 0 when the beginner's lessons are over; the drills end before the plain requests.
    pub(crate) fn lesson(&self, long: bool, ease: f64, rng: &mut StdRng) -> Lesson {
        if rng.random_bool((ease - 0.5).max(0.0)) {
            return self.drill(rng);
        }
        let form = Form::draw(rng);
        let mut lesson = Lesson::default();
        self.begin(&mut lesson, form, rng.random_bool(0.1).then(|| self.requests.pick("system", rng)));
        let turns = if long { rng.random_range(2..=3) } else { 1 };
        for turn in 1..=turns {
            let request = self.requests.draw(ease, rng);
            self.ask(&mut lesson, form, &request.text);
            let answer = self.answer(&request, rng);
            // An answer that comes back as history may have been given the space that text after a control token gets.
            let history = turn < turns && rng.random_bool(0.3);
            let mut said = self.vocabulary.encode(&answer, history);
            said.push(self.vocabulary.control("<|end|>"));
            if history {
                lesson.say(&said, false);
            } else {
                let words = request.wish.topic().map_or("", |topic| topic.words.as_str());
                lesson.answer(&said, &self.vocabulary.encode(words, true));
            }
            if !form.stripped && turn < turns {
                lesson.say(&self.vocabulary.encode("\n", false), false);
            }
        }
        lesson
    }

    /// Random pieces, to be said again in the same order: the shortest way to learn to copy a word never seen before.
    fn drill(&self, rng: &mut StdRng) -> Lesson {
        let pieces = self.vocabulary.pieces();
        let tokens: Vec<u32> =
            (0..rng.random_range(4..12)).map(|_| rng.random_range(pieces.clone())).collect();
        let mut lesson = Lesson::default();
        lesson.say(&[self.vocabulary.control("<|placeholder1|>")], false);
        lesson.say(&tokens, false);
        lesson.say(&[self.vocabulary.control("<|placeholder2|>")], false);
        lesson.say(&tokens, true);
        lesson
    }

    /// The tokens of a conversation up to where the next answer begins. `earlier` has the requests and answers before.
    pub(crate) fn prompt(&self, form: Form, earlier: &[(String, String)], text: &str) -> Vec<u32> {
        let mut lesson = Lesson::default();
        self.begin(&mut lesson, form, None);
        for (request, answer) in earlier {
            self.ask(&mut lesson, form, request);
            lesson.say(&self.vocabulary.encode(answer, form.prefix), false);
            lesson.say(&[self.vocabulary.control("<|end|>")], false);
            if !form.stripped {
                lesson.say(&self.vocabulary.encode("\n", false), false);
            }
        }
        self.ask(&mut lesson, form, text);
        lesson.tokens
    }

    fn begin(&self, lesson: &mut Lesson, form: Form, system: Option<&str>) {
        if form.begin {
            lesson.say(&[self.vocabulary.control("<s>")], false);
        }
        if let Some(system) = system {
            self.turn(lesson, form, "<|system|>", system);
        }
    }

    fn ask(&self, lesson: &mut Lesson, form: Form, text: &str) {
        self.turn(lesson, form, "<|user|>", text);
        lesson.say(&[self.vocabulary.control("<|assistant|>")], false);
        if !form.stripped {
            lesson.say(&self.vocabulary.encode("\n", false), false);
        }
    }

    fn turn(&self, lesson: &mut Lesson, form: Form, role: &str, text: &str) {
        lesson.say(&[self.vocabulary.control(role)], false);
        let text = if form.stripped { text.trim_start().to_owned() } else { format!("\n{text}") };
        lesson.say(&self.vocabulary.encode(&text, form.prefix), false);
        lesson.say(&[self.vocabulary.control("<|end|>")], false);
        if !form.stripped {
            lesson.say(&self.vocabulary.encode("\n", false), false);
        }
    }

    /// A good answer.
    pub(crate) fn answer(&self, request: &Request, rng: &mut StdRng) -> String {
        match &request.wish {
            Wish::Talk => HONEST.to_owned(),
            Wish::Haiku { topic, quality } => {
                self.grammar.haiku(topic.as_ref().map(|topic| topic.theme()), *quality, rng)
            }
        }
    }
}
