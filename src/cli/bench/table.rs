//! What was measured, for people.

use super::Found;
use super::machine::Limit;
use super::samples::Samples;
use super::series::{Growth, MemoryUse, Row, Series, What};
use super::work::Peaks;
use crate::cli::report::{row, size, table};

/// Bandwidths this far apart make one wonder what else the machine was doing.
const UNSTEADY: f64 = 0.1;

/// Bytes, or operations, of which a second holds so many: `41.2 GB/s`.
fn per_second(amount: f64, unit: &str) -> String {
    format!("{} G{unit}/s", digits(amount / 1e9))
}

/// Three digits or a few more.
fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// A time with its unit: `23.1 µs`.
fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "µs"),
    };
    format!("{} {unit}", digits(value))
}

fn percent(share: f64) -> String {
    format!("{} %", digits(share * 100.0))
}

/// The limits of the machine.
pub(super) fn limits(limits: &[Limit]) -> String {
    let mut rows = vec![row(["Limits of this machine", "threads", "median", "best"])];
    let mut add = |name: &str, unit: &str, of: fn(&Limit) -> &Samples| {
        for limit in limits {
            let samples = of(limit);
            let (median, best) = (per_second(samples.median(), unit), per_second(samples.longest(), unit));
            rows.push(row([name, &limit.threads.to_string(), &median, &best]));
        }
    };
    add("read bandwidth", "B", |limit| &limit.bandwidth);
    add("int8 arithmetic", "op", |limit| &limit.int8);
    add("f32 arithmetic", "op", |limit| &limit.f32);
    table(&rows)
}

/// The results, with what they are worth.
pub(super) fn results(found: &Found) -> String {
    let mut rows = vec![row(["Measured", "threads", "median", "best", "spread", "limit", "of limit"])];
    let work = &found.subject.work;
    for series in &found.series {
        let peaks = found.limits.peaks(&found.limits_after, series.threads);
        for measured in &series.rows {
            rows.push(speed(measured, series.threads, peaks.map(|peaks| measured.limit(work, &peaks))));
        }
        let others = [
            ("between passes", series.between.as_ref().map(|between| &between.means)),
            ("load", Some(&series.load)),
        ];
        for (name, samples) in others {
            if let Some(samples) = samples.filter(|samples| !samples.all().is_empty()) {
                rows.push(row([
                    name,
                    &series.threads.to_string(),
                    &time(samples.median()),
                    &time(samples.shortest()),
                    &percent(samples.spread()),
                ]));
            }
        }
    }
    table(&rows)
}

fn speed(measured: &Row, threads: usize, limit: Option<(super::work::Floor, f64, f64)>) -> Vec<String> {
    let check = matches!(measured.what, What::Verify(_));
    let shown =
        |rate: f64, seconds: f64| if check { time(seconds) } else { format!("{} tok/s", digits(rate)) };
    let times = &measured.times;
    let mut cells = row([
        &measured.what.name(),
        &threads.to_string(),
        &shown(measured.rate(), times.median()),
        &shown(measured.best_rate(), times.shortest()),
        &percent(times.spread()),
    ]);
    match limit {
        Some((floor, rate, share)) => {
            cells.push(format!("{} ({})", shown(rate, floor.seconds), floor.by));
            cells.push(percent(share));
        }
        None => cells.extend(["-".to_owned(), "-".to_owned()]),
    }
    cells.extend(measured.steps().map(|steps| format!("= {} passes of one token", digits(steps))));
    cells
}

/// Planned and measured memory.
pub(super) fn memory(memory: &MemoryUse) -> String {
    let planned = &memory.planned;
    let mut rows = vec![row([
        "planned",
        &size(planned.total_bytes()),
        &format!(
            "weights {}, keys and values {}, scratch {}",
            size(planned.weights_bytes),
            size(planned.kv_bytes),
            size(planned.scratch_bytes)
        ),
    ])];
    if planned.mapped_bytes > 0 {
        rows.push(row(["", &size(planned.mapped_bytes), "of weights left in the file"]));
    }
    match &memory.grown {
        Some(grown) => rows.extend(grown_rows(grown)),
        None => rows.push(row(["measured", "-", "only Linux says how much memory is of which kind"])),
    }
    let body: String = table(&rows).lines().map(|line| format!("  {line}\n")).collect();
    format!("Memory at a context of {} tokens\n{body}", planned.context_length)
}

fn grown_rows(grown: &Growth) -> Vec<Vec<String>> {
    let own = format!(
        "{} of its own ({} in huge pages), {} of files",
        size(grown.anonymous),
        size(grown.huge),
        size(grown.of_files)
    );
    let mut rows = vec![row(["after loading", &size(grown.anonymous + grown.of_files), &own])];
    let peaks = [("at most, loading", grown.loading_peak), ("at most, in all", grown.peak)];
    rows.extend(peaks.iter().filter_map(|(name, bytes)| Some(row([*name, &size((*bytes)?)]))));
    rows
}

/// What a reader should know before quoting a figure.
pub(super) fn notes(found: &Found) -> Vec<String> {
    let mut notes: Vec<String> = found
        .plan
        .skipped
        .iter()
        .map(|skipped| format!("Left out: {}. {}", skipped.what, skipped.why))
        .collect();
    for before in &found.limits.0 {
        let after = found.limits_after.0.iter().find(|after| after.threads == before.threads);
        if let Some(after) = after {
            let (first, last) = (before.bandwidth.median(), after.bandwidth.median());
            if (last - first).abs() > UNSTEADY * first {
                notes.push(format!(
                    "The read bandwidth of {} threads was {} before and {} after: something else was running.",
                    before.threads,
                    per_second(first, "B"),
                    per_second(last, "B")
                ));
            }
        }
    }
    if found.series.iter().any(|series| beyond(series, found)) {
        notes.push(
            "More than 100 %: the model is small enough for the CPU's caches, which are faster than memory."
                .to_owned(),
        );
    }
    notes
}

/// Whether anything was faster than memory.
fn beyond(series: &Series, found: &Found) -> bool {
    let peaks: Option<Peaks> = found.limits.peaks(&found.limits_after, series.threads);
    let work = &found.subject.work;
    peaks.is_some_and(|peaks| series.rows.iter().any(|measured| measured.limit(work, &peaks).2 > 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!(per_second(41.26e9, "B"), "41.3 GB/s");
        assert_eq!(per_second(1986.4e9, "op"), "1986 Gop/s");
        let times = [0.0, 23.14e-6, 0.9999e-3, 1e-3, 61.2e-3, 0.25, 1.5, 100.0];
        let shown = ["0.00 µs", "23.1 µs", "1000 µs", "1.00 ms", "61.2 ms", "250 ms", "1.50 s", "100 s"];
        assert_eq!(times.map(time), shown);
        assert_eq!(percent(0.6512), "65.1 %");
        assert_eq!(percent(1.5), "150 %");
    }
}
