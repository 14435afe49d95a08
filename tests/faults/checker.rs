//! The checker: whether each read showed what was true at some time that its bound allows. It knows no HTTP.
//!
//! A state may have been true from the moment its write was begun to the moment the next write was answered. A list
//! shows one moment of all records: there must be a time at which each of them may have been as shown.

use super::history::{History, Micros, Read, Shown, Source, State};

/// How old an answer may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// What another instance acknowledged this long ago must be shown. What the own one acknowledged, and what the
    /// request's token names, must be shown at once.
    pub elsewhere: Micros,
    /// The same for answers that say that they are stale; for those even the own instance has this long.
    pub marked: Micros,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub violations: Vec<String>,
    /// The oldest that an answer was which did not say so.
    pub largest_staleness: Micros,
}

/// Which states of a record agree with an answer.
type Fits<'a> = Box<dyn Fn(&State) -> bool + 'a>;

impl History {
    pub fn check(&self, bounds: Bounds) -> Verdict {
        let mut verdict = Verdict { violations: self.problems.clone(), largest_staleness: 0 };
        for read in &self.reads {
            match self.check_read(read, bounds) {
                Ok(staleness) if read.source != Source::Stale => {
                    verdict.largest_staleness = verdict.largest_staleness.max(staleness);
                }
                Ok(_) => {}
                Err(violation) => verdict.violations.push(violation),
            }
        }
        verdict
    }

    /// How old what it showed was when it was asked for.
    pub fn check_read(&self, read: &Read, bounds: Bounds) -> Result<Micros, String> {
        let shown_at = match &read.shown {
            Shown::Record { record, number } => {
                let fits: Fits = Box::new(|state| state.document.map(|document| document.number) == *number);
                self.common_time(read, bounds, &[(*record, fits)])?
            }
            Shown::List { question, records } => {
                if !records.windows(2).all(|pair| pair[0].1 > pair[1].1) {
                    return Err(format!("the list is out of order: {read:?}"));
                }
                let fits = |record: usize| -> Fits {
                    match records.iter().find(|(shown, _)| *shown == record) {
                        Some((_, number)) => Box::new(|state| {
                            state.document.is_some_and(|document| document.number == *number && question.includes(document))
                        }),
                        None => Box::new(|state| !state.document.is_some_and(|document| question.includes(document))),
                    }
                };
                let all: Vec<(usize, Fits)> = (0..self.records.len()).map(|record| (record, fits(record))).collect();
                self.common_time(read, bounds, &all)?
            }
            Shown::Count { question, total } => {
                let is_counted = |state: &State| state.document.is_some_and(|document| question.includes(document));
                self.time_of_count(read, bounds, *total, is_counted)?
            }
        };
        Ok(read.began.saturating_sub(shown_at))
    }

    /// The latest time at which every record may have had a state that fits.
    fn common_time(&self, read: &Read, bounds: Bounds, records: &[(usize, Fits)]) -> Result<Micros, String> {
        let mut time = read.ended;
        loop {
            let before = time;
            for (record, fits) in records {
                let states = &self.records[*record];
                let first = first_allowed(states, read, bounds, fits);
                time = latest(states, first, fits, time).ok_or_else(|| self.explain(read, *record, first, fits))?;
            }
            if time == before {
                return Ok(time);
            }
        }
    }

    /// The latest time at which as many records as that may have counted.
    fn time_of_count(
        &self,
        read: &Read,
        bounds: Bounds,
        total: u64,
        is_counted: impl Fn(&State) -> bool,
    ) -> Result<Micros, String> {
        let first = |states: &Vec<State>| {
            let must = newest_to_show(states, read, bounds);
            first_alike(states, must, |state| is_counted(state) == is_counted(&states[must]))
        };
        let allowed: Vec<(&[State], usize)> = self.records.iter().map(|states| (states.as_slice(), first(states))).collect();
        let is_possible = |time: Micros| {
            let (mut least, mut most) = (0, 0);
            for (states, first) in &allowed {
                let living = (*first..states.len()).filter(|index| states[*index].began <= time && time <= until(states, *index));
                let (mut inside, mut outside) = (false, false);
                for index in living {
                    *(if is_counted(&states[index]) { &mut inside } else { &mut outside }) = true;
                }
                if !inside && !outside {
                    return false;
                }
                least += u64::from(inside && !outside);
                most += u64::from(inside);
            }
            (least..=most).contains(&total)
        };
        if is_possible(read.ended) {
            return Ok(read.ended);
        }
        let mut times: Vec<Micros> = Vec::new();
        for (states, first) in &allowed {
            for index in *first..states.len() {
                times.extend([until(states, index), states[index].began.saturating_sub(1)]);
            }
        }
        times.retain(|time| *time < read.ended);
        times.sort_unstable();
        times.dedup();
        let possible = times.into_iter().rev().find(|time| is_possible(*time));
        possible.ok_or_else(|| format!("no time that is allowed explains the count: {read:?}"))
    }

    fn explain(&self, read: &Read, record: usize, first: usize, fits: &Fits) -> String {
        let states = &self.records[record];
        let newest = states[..first].iter().rposition(fits);
        let why = match newest {
            Some(index) => {
                let missed = &states[first];
                let age = read.began.saturating_sub(missed.acknowledged.unwrap_or(missed.began)) / 1000;
                format!("it shows state {index}, and state {first} was acknowledged {age} ms before it began: {missed:?}")
            }
            None => {
                format!("no state of it fits at that time; the last ones are {:?}", &states[states.len().saturating_sub(3)..])
            }
        };
        let mut asked = format!("{read:?}");
        asked.truncate(600);
        format!("record {record}: {why}; {asked}")
    }
}

/// The first state that the read may show.
fn first_allowed(states: &[State], read: &Read, bounds: Bounds, fits: &Fits) -> usize {
    let must = newest_to_show(states, read, bounds);
    if fits(&states[must]) { first_alike(states, must, fits) } else { must }
}

/// The answer would have been the same before the last changes, if they are none that it shows: an entry that they do not
/// concern lives on.
fn first_alike(states: &[State], from: usize, is_alike: impl Fn(&State) -> bool) -> usize {
    let unlike = states[..from].iter().rposition(|state| state.acknowledged.is_some() && !is_alike(state));
    unlike.map_or(0, |unlike| unlike + 1)
}

/// The newest state that the read must show; any later one will do as well.
fn newest_to_show(states: &[State], read: &Read, bounds: Bounds) -> usize {
    let must_be_shown = |state: &State| {
        let Some(acknowledged) = state.acknowledged else { return false };
        let is_named = state.token.is_some() && state.token == read.token;
        let bound = match read.source {
            _ if is_named => 0,
            Source::Stale => bounds.marked,
            _ if state.instance == read.instance => 0,
            Source::Hit | Source::Miss | Source::Bypass => bounds.elsewhere,
        };
        acknowledged + bound <= read.began
    };
    states.iter().rposition(must_be_shown).unwrap_or(0)
}

/// When a state can no longer be true: the next write that surely happened has been answered.
fn until(states: &[State], index: usize) -> Micros {
    states[index + 1..].iter().find_map(|state| state.acknowledged).unwrap_or(Micros::MAX)
}

/// The latest time, at most `time`, at which one of the states from `first` on that fit may have been true.
fn latest(states: &[State], first: usize, fits: &Fits, time: Micros) -> Option<Micros> {
    let possible = (first..states.len()).filter(|index| fits(&states[*index])).filter_map(|index| {
        let last = until(states, index).min(time);
        (states[index].began <= last).then_some(last)
    });
    possible.max()
}
