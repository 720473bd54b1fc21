//! The steps of a process, each a statement or a request.

use super::database::{is_pending, passes_fence};
use super::rebuild;
use super::rules::{Rule, Rules};
use super::state::{State, Target};
use super::task::{Lane, Process, Task};

/// What a process does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `state::move_epoch`, in `Session::begin`.
    MoveEpoch,
    /// `binding::replace_write_aliases`, in `Session::begin`.
    ReplaceAlias,
    /// `etl.note_fan_outs`, in `sync::touches::touch_for_a_while`.
    NoteFanOuts,
    /// Without [`Rule::NotedWithStamp`]: the other half.
    NoteLater,
    /// `etl.expand_fan_outs`, in `sync::touches::touch_for_a_while`.
    ExpandFanOuts,
    /// `outbox::drain_touches`, in `sync::touches::touch_chunk`.
    DrainTouches,
    /// `film_work::load_films`, in `sync::page::load_page`.
    LoadFilm,
    /// Without [`Rule::RowVersion`]: a number is taken before anything is read.
    TakeNumber,
    /// `related::load_credits`, in `sync::page::load_page`.
    LoadRelations,
    /// `Way::send`, for `sync::batch::index_page`, `sync::deletions::bury` and `sync::rebuild::advance`, to one
    /// index. The answer comes back.
    Send,
    /// The same; the answer is lost, and the request late. The term is over.
    SendLate,
    /// The same; the answer comes back, and the request will arrive once more.
    SendTwice,
    /// `Session::hand_out`, in `sync::batch::index_page` and `sync::rebuild::advance`: the process goes on while the
    /// request is open.
    HandOut,
    /// A request that is open is sent by its thread to one index, and answered: `Senders`.
    SendOpen(Lane),
    /// The same; the answer is lost, and the request late. The term is over.
    SendOpenLate(Lane),
    /// `Session::next_answer`, in `sync::batch::settle_next`.
    TakeAnswer(Lane),
    /// `etl.stamp_rows`, in `sync::batch::settle`.
    Stamp,
    /// `stamp::touch`, in `sync::batch::settle`.
    TouchPastConflict,
    /// `outbox::load_tombstones`, in `sync::deletions::bury`.
    LoadTombstones,
    /// `outbox::revive`, in `sync::deletions::bury`.
    Revive,
    /// `outbox::forget`, in `sync::deletions::bury`.
    Forget,
    /// `outbox::raise_tombstone`, in `sync::deletions::bury`.
    RaiseTombstone,
    /// `rebuild::load_rebuild`, in `sync::rebuild::prepare`, which finds one that is filled, or none.
    LoadFilling,
    /// `rebuild::load_rebuild`, in `sync::rebuild::prepare`, which finds it requested.
    LoadRequested,
    /// `rebuild::rename` and `new_index::create`, in `sync::rebuild::make`: one that another process has left
    /// is not needed any more then.
    MakeNew,
    /// `rebuild::begin_filling`, in `sync::rebuild::make`.
    BeginFilling,
    /// `sync::rebuild::give_up`, in `sync::rebuild::prepare`.
    GiveUp,
    /// `Elasticsearch::delete_index` and `rebuild::forget_rebuild`, in `sync::rebuild::prepare`.
    RemoveNew,
    /// `film_work::load_films`, in `sync::page::load_page`, for `sync::rebuild::advance`.
    LoadFill,
    /// `stamp::touch_behind`, in `sync::rebuild::advance`.
    TouchBehind,
    /// `rebuild::save_filled`, in `sync::rebuild::advance`.
    SaveFilled,
    /// `rebuild::begin_switching`, in `sync::rebuild::finish`.
    BeginSwitching,
    /// `rebuild::load_rebuild`, in `sync::rebuild::prepare`, which finds a switch that was begun.
    LoadSwitching,
    /// `Elasticsearch::update_aliases`, in `sync::rebuild::finish_switch`.
    SwitchAliases,
    /// `rebuild::finish_switching`, in `sync::rebuild::finish_switch`.
    FinishSwitching,
    /// Killed, or ended by an error. Where it was is lost.
    Die,
}

impl Step {
    /// All that a process can do now, in the order of `sync::step`; first of all what it would do if
    /// nothing went wrong.
    pub fn possible(state: &State, process: Process, rules: Rules, steps: &mut Vec<Self>) {
        match process.task {
            Task::Down if state.is_usable() => steps.push(Self::MoveEpoch),
            Task::Begun => steps.push(rebuild::first_step(state)),
            Task::Asked => steps.push(Self::MakeNew),
            Task::Made { .. } => steps.push(Self::BeginFilling),
            Task::Switching => steps.push(Self::SwitchAliases),
            Task::Switched => steps.push(Self::FinishSwitching),
            Task::Down | Task::Dead => {}
            Task::Elected => steps.push(Self::ReplaceAlias),
            Task::Idle => {
                let is_answered = |lane: &Lane| {
                    process.open[*lane as usize].is_some() && !process.is_waiting(*lane)
                };
                steps.extend(Lane::ALL.into_iter().filter(is_answered).map(Self::TakeAnswer));
                Self::from_idle(state, process, rules, steps);
            }
            Task::PersonStamped => steps.push(Self::NoteLater),
            Task::Numbered(_) | Task::RelationsRead { .. } if rules.has(Rule::FilmFirst) => {
                steps.push(Self::LoadFilm);
            }
            Task::Numbered(_) | Task::FilmRead { .. } | Task::FillRead { .. } => {
                steps.push(Self::LoadRelations);
            }
            Task::RelationsRead { .. } => steps.push(Self::LoadFilm),
            Task::FillBuilt { is_noted: false, .. } if !rules.has(Rule::FillNotedLast) => {
                steps.push(Self::SaveFilled);
            }
            Task::Built { .. } | Task::Burying(_) | Task::FillBuilt { .. } => {
                steps.push(Self::Send);
            }
            Task::FillRefused(_) => steps.push(Self::TouchBehind),
            Task::FillAnswered => steps.push(Self::SaveFilled),
            Task::Acknowledged(_) => steps.push(Self::Stamp),
            Task::Refused(_) => steps.push(Self::TouchPastConflict),
            Task::Reviving(_) => steps.push(Self::Revive),
            Task::Buried(_) => steps.push(Self::Forget),
            Task::BurialRefused(..) => steps.push(Self::RaiseTombstone),
        }
        let waiting = Lane::ALL.into_iter().filter(|lane| process.is_waiting(*lane));
        steps.extend(waiting.map(Self::SendOpen));
    }

    fn from_idle(state: &State, process: Process, rules: Rules, steps: &mut Vec<Self>) {
        let passes = passes_fence(process, rules);
        let mut push = |step, is_possible: bool| steps.extend(is_possible.then_some(step));
        push(Self::NoteFanOuts, !state.person.fanned_out);
        push(Self::ExpandFanOuts, state.outbox.fan_out && passes);
        push(Self::DrainTouches, state.outbox.touch && passes);
        let load = match (rules.has(Rule::RowVersion), rules.has(Rule::FilmFirst)) {
            (false, _) => Self::TakeNumber,
            (true, true) => Self::LoadFilm,
            (true, false) => Self::LoadRelations,
        };
        let is_to_send = |film| is_pending(film, rules) && !process.is_on_its_way(film);
        push(load, state.film.is_some_and(is_to_send));
        let waits = rules.has(Rule::DeleteWaits) && process.is_waiting(Lane::Document)
            || rules.has(Rule::DeleteWaitsForFill) && process.is_waiting(Lane::Fill);
        push(Self::LoadTombstones, state.outbox.tombstone.is_some() && !waits);
        rebuild::advance(state, process, steps);
    }

    /// Its statement does nothing when the epoch has moved.
    pub fn is_fenced(self) -> bool {
        use Step::{
            BeginFilling, BeginSwitching, DrainTouches, ExpandFanOuts, Forget, GiveUp, Revive,
            SaveFilled, Stamp,
        };
        matches!(
            self,
            ExpandFanOuts
                | DrainTouches
                | Stamp
                | Revive
                | Forget
                | SaveFilled
                | BeginFilling
                | BeginSwitching
                | GiveUp
        )
    }

    /// It is one of `sync::rebuild`.
    pub fn is_of_rebuild(self) -> bool {
        use Step::{
            BeginFilling, BeginSwitching, FinishSwitching, GiveUp, LoadFill, LoadFilling,
            LoadRequested, LoadSwitching, MakeNew, RemoveNew, SaveFilled, SwitchAliases,
            TouchBehind,
        };
        let prepares = matches!(
            self,
            LoadFilling | LoadRequested | MakeNew | BeginFilling | GiveUp | RemoveNew
        );
        let fills = matches!(self, LoadFill | TouchBehind | SaveFilled);
        let ends = [BeginSwitching, LoadSwitching, SwitchAliases, FinishSwitching].contains(&self);
        prepares || fills || ends
    }

    /// Where the next request of a process goes to: to the live index, then to the new one.
    pub fn target(process: Process) -> Target {
        let is_fill = matches!(process.task, Task::FillBuilt { .. });
        if is_fill || process.live_answer.is_some() { Target::New } else { Target::Live }
    }

    /// The same for one that was handed out.
    pub fn open_target(process: Process, lane: Lane) -> Target {
        let is_fill = lane == Lane::Fill;
        if is_fill || process.open_live_answer.is_some() { Target::New } else { Target::Live }
    }
}
