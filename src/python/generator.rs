//! A loaded model: `phicandle._phicandle.RawGenerator`.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::error::raise;
use super::options::Options;
use super::params::Params;
use super::prompt::{Content, Continuation, prompt};
use super::stream::RawStream;
use super::tokenizer::RawTokenizer;
use super::{facts, gil, loader, log};
use crate::engine::{Engine, EventStream, Request, ScoreRequest, silence};
use crate::error::{Error, Result};
use crate::sampling::timeout;

/// A loaded model and the engine that runs it.
#[pyclass(frozen, module = "phicandle._phicandle")]
pub(super) struct RawGenerator {
    /// There until the object goes away.
    engine: Option<Engine>,
    pid: u32,
}

impl RawGenerator {
    fn engine(&self, py: Python<'_>) -> PyResult<&Engine> {
        gil::same_process(self.pid)
            .and_then(|()| {
                self.engine.as_ref().ok_or_else(|| Error::internal("A generator outlived itself."))
            })
            .map_err(|error| raise(py, &error))
    }

    /// Starts what `ask` asks of the engine. A task that asks while the interpreter ends gets no answer, and no error either.
    fn begin(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&Engine) -> Result<EventStream> + Send,
    ) -> PyResult<RawStream> {
        let begun = gil::enter(py, || {
            let engine = self.engine(py)?;
            log::connect(py)?;
            gil::free(py, || ask(engine))
        });
        let events = match begun {
            Err(_) if gil::is_left_in_loop(py) => silence(),
            begun => begun?,
        };
        Ok(RawStream::new(events, self.engine(py)?.tokenizer().clone()))
    }
}

#[pymethods]
impl RawGenerator {
    /// Loads a model, from the hub where need be.
    #[staticmethod]
    fn load(py: Python<'_>, options: Options, progress: Option<Bound<'_, PyAny>>) -> PyResult<Self> {
        gil::enter(py, || {
            loader::check_fork().map_err(|error| raise(py, &error))?;
            let engine =
                loader::load(py, progress.as_ref(), move |progress, cancel| options.load(progress, cancel))?;
            Ok(Self { engine: Some(engine), pid: std::process::id() })
        })
    }

    /// Stands for a generator in a process where none can be: all that can be done with it is to be told so.
    #[staticmethod]
    fn of_parent() -> Self {
        Self { engine: None, pid: loader::loaded_in() }
    }

    /// Starts an answer.
    fn submit(&self, py: Python<'_>, prompt: (String, Content), params: Params) -> PyResult<RawStream> {
        let (form, content) = prompt;
        self.begin(py, move |engine| {
            let prompt = self::prompt(&form, content)?;
            engine.submit(Request { prompt, params: params.into_core()? })
        })
    }

    /// Starts to find out how likely continuations are, with the `top` likeliest tokens at each place.
    fn score(
        &self,
        py: Python<'_>,
        prompt: (String, Content),
        continuations: Vec<Continuation>,
        top: usize,
        timeout: Option<f64>,
    ) -> PyResult<RawStream> {
        let (form, content) = prompt;
        self.begin(py, move |engine| {
            let prompt = self::prompt(&form, content)?;
            let continuations = continuations
                .into_iter()
                .map(|continuation| match continuation {
                    Continuation::Text(text) => engine.continuation_tokens(&prompt, &text),
                    Continuation::Ids(ids) => Ok(ids),
                })
                .collect::<Result<_>>()?;
            let timeout = timeout.map(self::timeout).transpose()?;
            engine.score(ScoreRequest { prompt, continuations, top, timeout })
        })
    }

    /// Saves the keys and values of a conversation without its oldest turns, as far as they are known: of how many tokens.
    fn save_prefix(
        &self,
        py: Python<'_>,
        prompt: (String, Content),
        turns: usize,
        path: PathBuf,
    ) -> PyResult<usize> {
        gil::enter(py, || {
            let engine = self.engine(py)?;
            let (form, content) = prompt;
            gil::free(py, || {
                let prompt = self::prompt(&form, content)?.without_oldest(turns);
                engine.save_prefix(&engine.prompt_tokens(&prompt)?, &path)
            })
        })
    }

    /// Loads keys and values that were saved, as far as there is memory for them: of how many tokens.
    fn load_prefix(&self, py: Python<'_>, path: PathBuf) -> PyResult<usize> {
        gil::enter(py, || {
            let engine = self.engine(py)?;
            gil::free(py, || engine.load_prefix(&path))
        })
    }

    /// The model's tokenizer, with its chat template.
    fn tokenizer(&self, py: Python<'_>) -> PyResult<RawTokenizer> {
        gil::enter(py, || {
            let engine = self.engine(py)?;
            Ok(RawTokenizer::new(engine.tokenizer().clone(), engine.template().source().to_owned()))
        })
    }

    /// For `phicandle.ModelInfo`.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        gil::guard(py, || facts::model(py, self.engine(py)?.info()))
    }

    /// For `phicandle.EngineStats`.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        gil::guard(py, || facts::stats(py, &self.engine(py)?.stats()))
    }

    /// Whether `close` was called.
    fn is_closed(&self) -> bool {
        self.engine.as_ref().is_none_or(Engine::is_closed)
    }

    /// Ends every request, the worker and the model. In a forked child there is none of them.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        gil::enter(py, || {
            if let Ok(engine) = self.engine(py) {
                py.detach(|| engine.close());
            }
            Ok(())
        })
    }
}

impl Drop for RawGenerator {
    /// The engine waits for the pass under way, so the GIL is given back meanwhile. Where it cannot be, the wait comes
    /// with it: the worker never needs it.
    fn drop(&mut self) {
        let engine = self.engine.take();
        if self.pid == std::process::id() {
            Python::try_attach(move |py| py.detach(move || drop(engine)));
        }
    }
}

/// The memory that a model would take: for `phicandle.MemoryPlan`.
#[pyfunction]
pub(super) fn estimate<'py>(
    py: Python<'py>,
    options: Options,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    gil::enter(py, || {
        let plan =
            loader::load(py, progress.as_ref(), move |progress, cancel| options.estimate(progress, cancel))?;
        facts::memory(py, &plan)
    })
}
