//! The machine: everything that can happen next, and what must be true in the end.

use stateright::{Model, Property};

use super::rules::{Bounds, Rule, Rules};
use super::state::{BY_HAND, Held, LONG_AGO, Phase, Reset, State};
use super::step::Step;
use super::task::{Lane, Process, Task};
use super::writers::Write;
use super::{database, engine};

/// The protocol, with the rules that are kept, within bounds.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    pub rules: Rules,
    pub bounds: Bounds,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A writer commits.
    Write(Write),
    /// A process goes on: 0 is the old leader.
    Process(usize, Step),
    /// A late request arrives.
    Arrive(usize),
    /// The engine restarts and forgets deletes.
    RestartEngine,
    /// `etl init-es` goes on: `sync::new_index::Switch::carry_out`.
    Reset,
    /// `etl init-es` is killed before its end, and run again.
    ResetAgain,
    /// `rebuild::request`, in `etl rebuild`.
    AskForRebuild,
    /// `rebuild::cancel`, in `etl rebuild --cancel`.
    CancelRebuild,
    /// Somebody writes to the new index, before it is filled, with a far higher version.
    WriteNewByHand,
    /// A writer locks the film.
    Lock,
    /// It commits, or rolls back.
    Unlock,
    /// The clock steps back.
    StepClock,
    /// Somebody overwrites the document with a far higher version.
    WriteByHand,
}

/// More steps than any clean run takes: it goes round in circles.
const STEPS_MAX: usize = 100;

impl Machine {
    fn process_events(&self, state: &State, events: &mut Vec<Event>) {
        let has_room = state.late.iter().filter(|late| late.is_some()).count() < self.bounds.late;
        for (who, process) in state.processes.iter().enumerate() {
            if who == 0 && !self.bounds.rival {
                continue;
            }
            let mut steps = Vec::new();
            Step::possible(state, *process, self.rules, &mut steps);
            if self.bounds.two_makers && steps == [Step::MakeNew] && process.task == Task::Begun {
                steps = vec![Step::LoadRequested];
            }
            let is_making = |p: &Process| matches!(p.task, Task::Made { .. });
            if !self.bounds.two_makers && state.processes.iter().any(is_making) {
                steps.retain(|step| *step != Step::MakeNew);
            }
            // What goes out when its alias is gone never arrives.
            let has_alias = engine::has_alias(*process, Step::target(*process));
            let can_arrive = has_alias || !self.rules.has(Rule::Alias);
            if steps.contains(&Step::Send) && has_room && can_arrive {
                steps.push(Step::SendLate);
                if self.bounds.duplicates {
                    steps.push(Step::SendTwice);
                }
            }
            if self.bounds.senders {
                self.hand_out_events(process, has_room, &mut steps);
            }
            if !matches!(process.task, Task::Dead | Task::Down) {
                steps.push(Step::Die);
            }
            events.extend(steps.into_iter().map(|step| Event::Process(who, step)));
        }
    }

    fn hand_out_events(&self, process: &Process, has_room: bool, steps: &mut Vec<Step>) {
        let is_free = |lane: Lane| process.open[lane as usize].is_none();
        // What has been sent to one index cannot be handed out any more.
        if process.live_answer.is_none() && Lane::of(process.task).is_some_and(is_free) {
            steps.push(Step::HandOut);
        }
        for lane in Lane::ALL {
            let has_alias = engine::has_alias(*process, Step::open_target(*process, lane));
            let can_arrive = has_alias || !self.rules.has(Rule::Alias);
            if process.is_waiting(lane) && has_room && can_arrive {
                steps.push(Step::SendOpenLate(lane));
            }
        }
    }

    fn happen(&self, state: &mut State, event: Event) {
        match event {
            Event::Write(write) => write.commit(state, self.rules),
            Event::Process(who, step) => step.take(state, who, self.rules),
            Event::Arrive(place) => engine::arrive_late(state, place),
            Event::RestartEngine => engine::restart(state),
            Event::Reset => database::reset(state, self.rules),
            Event::ResetAgain => database::reset_again(state),
            Event::AskForRebuild => database::request_rebuild(state, self.rules),
            Event::CancelRebuild => database::cancel_rebuild(state),
            Event::WriteNewByHand => {
                if let Some(new) = &mut state.new {
                    new.held = Held { doc: Some((u8::MAX, None)), version: BY_HAND };
                }
                state.wrote_by_hand = true;
            }
            Event::Lock => state.film_is_locked = true,
            Event::Unlock => state.film_is_locked = false,
            Event::StepClock => {
                state.clock = LONG_AGO;
                state.clock_stepped = true;
            }
            Event::WriteByHand => {
                state.held = Held { doc: Some((u8::MAX, None)), version: BY_HAND };
                state.by_hand = true;
                state.wrote_by_hand = true;
            }
        }
    }

    /// Writers pause, and one process runs from its start until there is nothing to do. `None`: there
    /// is no end of it.
    fn run_cleanly(&self, mut state: State) -> Option<State> {
        state.film_is_locked = false;
        // `etl start` tells the operator to run `etl init-es` again if that was not finished.
        if !state.is_usable() {
            state.reset = Reset::NotBegun;
            while state.reset != Reset::Bound {
                database::reset(&mut state, self.rules);
            }
        }
        state.processes[1] = Process::new(Task::Down);
        let mut steps = Vec::new();
        for _ in 0..STEPS_MAX {
            steps.clear();
            Step::possible(&state, state.processes[1], self.rules, &mut steps);
            let Some(step) = steps.first() else { return Some(state) };
            step.take(&mut state, 1, self.rules);
        }
        None
    }

    /// The state is bound to what people search: else only `etl init-es` helps. And
    /// after a clean run the index holds what PostgreSQL gives, and still does when all that is late
    /// has arrived, in any order, and the engine was restarted before.
    fn ends_right(&self, state: &State) -> bool {
        if state.is_lost {
            return false;
        }
        let is_under_way = |p: &Process| !matches!(p.task, Task::Dead | Task::Down | Task::Idle);
        // Such a process is killed or goes on; both come to states that are looked at. What was
        // written by hand is seen when the film is written again.
        if state.by_hand || state.processes.iter().any(is_under_way) {
            return true;
        }
        let Some(end) = self.run_cleanly(*state) else { return false };
        let mut restarted = end;
        if self.bounds.restarts {
            engine::restart(&mut restarted);
        }
        [end, restarted].into_iter().all(|end| {
            [[0, 0], [1, 0]].into_iter().all(|order| {
                let mut end = end;
                // The places close up, so that the second is the first then.
                for place in order {
                    engine::arrive_late(&mut end, place);
                }
                end.held.doc == end.document() && end.rebuild.is_none()
            })
        })
    }
}

impl Model for Machine {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(true), State::first(false)]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        let Bounds { writes, .. } = self.bounds;
        if state.writes < writes {
            let mut possible = Vec::new();
            Write::possible(state, self.bounds, &mut possible);
            events.extend(possible.into_iter().map(Event::Write));
        }
        self.process_events(state, events);
        let late = state.late.iter().enumerate().filter(|(_, late)| late.is_some());
        events.extend(late.map(|(place, _)| Event::Arrive(place)));
        let mut push = |event, is_possible: bool| events.extend(is_possible.then_some(event));
        let new_held = state.new.map(|new| new.held);
        let forgets = [Some(state.held), new_held]
            .into_iter()
            .flatten()
            .any(|held| held.doc.is_none() && held.version > 0);
        push(Event::RestartEngine, self.bounds.restarts && forgets);
        // It waits for a film that is locked.
        let waits = state.reset == Reset::PersonsFannedOut && state.film_is_locked;
        push(Event::Reset, self.bounds.reset && state.reset != Reset::Bound && !waits);
        push(Event::ResetAgain, !state.is_bound() && state.reset != Reset::Unbound);
        let Bounds { rebuild, cancel, new_by_hand, .. } = self.bounds;
        push(Event::AskForRebuild, rebuild && !state.asked && state.is_bound());
        let can_cancel = matches!(state.rebuild, Some(Phase::Requested | Phase::Filling { .. }));
        push(Event::CancelRebuild, cancel && can_cancel);
        // What is written after that is seen when the film is written again, as in the live index.
        let is_answered = |p: &Process| {
            [Some(p.task), p.open[Lane::Fill as usize]]
                .iter()
                .any(|task| matches!(task, Some(Task::FillAnswered | Task::FillRefused(_))))
        };
        let can_write_new = state.rebuild == Some(Phase::Filling { is_filled: false })
            && state.new.is_some()
            && state.film.is_some()
            && !state.processes.iter().any(is_answered);
        push(Event::WriteNewByHand, new_by_hand && can_write_new && !state.wrote_by_hand);
        push(Event::Lock, self.bounds.locks && state.film.is_some() && !state.film_is_locked);
        push(Event::Unlock, state.film_is_locked);
        push(Event::StepClock, self.bounds.clock_step && !state.clock_stepped);
        // Into an index that is searched: one that `etl init-es` is still making belongs to it alone.
        let can_write = self.bounds.by_hand && state.is_bound();
        push(Event::WriteByHand, can_write && !state.wrote_by_hand);
    }

    fn next_state(&self, state: &State, event: Event) -> Option<State> {
        let mut next = *state;
        self.happen(&mut next, event);
        Some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        let past_clock = state.film.map_or(0, |film| film.touched_at.saturating_sub(state.clock));
        past_clock.max(state.batches) <= self.bounds.runaway
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("the index ends as PostgreSQL says", |machine: &Self, state| {
            machine.ends_right(state)
        })]
    }
}
