//! Those who leave: they hear of it before anything is computed for those who stay.

use std::path::Path;

use super::reader::Reader;
use super::threads::DEMO;
use super::*;
use crate::engine::step::step;
use crate::model::{Around, Run};

const LIMITS: Limits = Limits {
    slots: 2,
    run_tokens: 64,
    layers: 1,
    context_length: 512,
    kv_tokens: 1024,
    vocab_size: 30,
    original_context: None,
    kept_tokens: None,
    rewinds: true,
    shares: true,
};

/// The demo model, which waits in every pass until it is told to stop, or need not wait any more. `begins` hears of each pass;
/// nothing waits once the other end of `goes_on` is gone.
fn held(model: Box<dyn Forward>, begins: Sender<()>, goes_on: Receiver<()>) -> Box<dyn Forward> {
    Box::new(Around::new(model, move |model, batch, logits, stop| {
        begins.send(()).unwrap();
        while goes_on.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            if stop() {
                return Ok(false);
            }
            std::thread::yield_now();
        }
        model.forward(batch, logits, stop)
    }))
}

#[test]
fn whoever_leaves_hears_of_it_while_the_next_pass_goes_on() {
    let mut options = LoadOptions::new(ModelSource::File(Path::new(DEMO).to_owned()));
    options.threads = Some(1);
    options.max_batch = 2;
    let ((begins, begun), (go_on, goes_on)) = (channel(), channel());
    let model = LoadedModel::load(&options).unwrap();
    let engine = model.wrap(|model| held(model, begins, goes_on)).into_engine().unwrap();
    let ask = || engine.submit(request("The", |params| params.max_tokens = Some(3))).unwrap();
    let leaves = ask();
    begun.recv_timeout(SOON).unwrap();
    let stays = ask();
    leaves.cancel();
    begun.recv_timeout(SOON).unwrap();
    // Nothing ends this second pass, which is for the other one alone.
    assert_eq!(finish(read(&leaves).1).reason, FinishReason::Cancelled);
    assert_eq!(engine.stats().finished, 1);
    drop(go_on);
    assert_eq!(finish(read(&stays).1).usage.completion_tokens, 3);
}

#[test]
fn a_step_ends_those_who_left_or_computes() {
    let params = || SamplingParams { max_tokens: Some(5), ..SamplingParams::default() };
    let (mut scheduler, streams) = waiting(LIMITS, [(3, params()), (3, params()), (3, params())]);
    let (mut model, mut logits) = (Reader::new(LIMITS), Logits::default());
    let mut next = |scheduler: &mut Scheduler| {
        let ended = step(scheduler, &mut model, &mut logits, &|_| false).ended.len();
        let slots = |pass: &Vec<Run>| pass.iter().map(|run| run.slot).collect::<Vec<_>>();
        (ended, model.passes.len(), model.passes.last().map(slots).unwrap_or_default())
    };
    assert_eq!(next(&mut scheduler), (0, 1, vec![0, 1]));
    // One in a slot, and one that waits for it.
    streams[0].cancel();
    streams[2].cancel();
    assert_eq!(next(&mut scheduler), (2, 1, vec![0, 1]));
    assert_eq!(next(&mut scheduler), (0, 2, vec![1]));
}
