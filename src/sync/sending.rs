//! How the operations of a term go out: several requests at a time, each through the private write aliases of
//! its kind.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::elasticsearch::bulk::{BulkPart, Outcome};
use crate::elasticsearch::index::Index;
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::rebuild::note_trouble;
use crate::postgres::stamp::AsRead;
use crate::sync::limits::Limits;
use crate::sync::page::Page;
use crate::sync::rebuild;
use crate::sync::senders::{Answer, Request, Way, send_each_way};
use crate::sync::session::Session;

/// How a request is counted: neither do edits wait behind a load, nor a load behind a steady trickle of edits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// As many at a time as the limits say.
    Backlog,
    /// One more, for what was touched since a load began.
    Fresh,
    /// To the new index alone: as many as the backlog leaves, and half of them in any case.
    Fill,
}

/// A request that is open.
#[derive(Debug)]
pub(super) struct Sent {
    pub number: u64,
    pub kind: Kind,
    pub lane: Lane,
    page: Arc<Page>,
    range: Range<usize>,
}

/// A request, and what has become of each of its operations.
pub(super) type Answered = (Sent, Result<Vec<Outcome>, Error>);

impl Sent {
    /// Returns the rows whose documents it has.
    pub fn rows(&self) -> &[AsRead] {
        &self.page.to_send[self.range.clone()]
    }
}

impl Session<'_> {
    /// Returns the rows of a kind whose documents are on their way.
    pub(super) fn rows_on_their_way(&self, kind: Kind) -> impl Iterator<Item = &AsRead> {
        self.open.iter().filter(move |sent| sent.kind == kind).flat_map(Sent::rows)
    }

    /// Returns those of them that are to be stamped when they have arrived.
    pub(super) fn rows_to_be_stamped(&self, kind: Kind) -> impl Iterator<Item = &AsRead> {
        let is_one = move |sent: &&Sent| sent.kind == kind && sent.lane != Lane::Fill;
        self.open.iter().filter(is_one).flat_map(Sent::rows)
    }

    /// Returns how many more requests may be open.
    pub(super) fn room(&self, lane: Lane) -> usize {
        let open_of = |lane| self.open.iter().filter(|sent| sent.lane == lane).count();
        let all = self.limits.open_requests;
        let open_max = match lane {
            Lane::Backlog => all,
            Lane::Fresh => 1,
            Lane::Fill => all - open_of(Lane::Backlog).min(all / 2),
        };
        open_max.saturating_sub(open_of(lane))
    }

    /// Returns for how many requests a page of a fill may be read: for as many as a page is read for, or for fewer if
    /// none of a fill is open.
    pub(super) fn room_for_fill(&self) -> usize {
        let full = self.limits.requests_of_page();
        match self.room(Lane::Fill) {
            room if room >= full => full,
            room if !self.open.iter().any(|sent| sent.lane == Lane::Fill) => room,
            _ => 0,
        }
    }

    /// Has the operations of a page from this one on sent, as many as one request holds, to where a kind lives or to its
    /// new index, and does not wait for the answer. Returns the number of the request, and where it ends.
    pub(super) fn hand_out(
        &mut self,
        kind: Kind,
        lane: Lane,
        page: &Arc<Page>,
        first: usize,
    ) -> (u64, usize) {
        let Limits { batch_rows, bulk_bytes, .. } = self.limits;
        let end = page.body.end_of_part(first, bulk_bytes).min(first + batch_rows);
        let range = first..end;
        let mut ways = self.ways(kind);
        if lane == Lane::Fill {
            assert_eq!(ways.len(), 2, "only a kind that is rebuilt is filled");
            ways.remove(0);
        }
        let request = Request { ways, page: Arc::clone(page), range: range.clone() };
        let number = self.senders.hand_out(request);
        if lane != Lane::Fill {
            self.note_turn(kind, number);
        }
        self.open.push(Sent { number, kind, lane, page: Arc::clone(page), range });
        (number, end)
    }

    /// Returns the kinds that have a new index, beginning with the one that has fewest requests open: they share them.
    pub(super) fn filled_in_turn(&mut self) -> Vec<Kind> {
        let mut kinds = self.kinds();
        kinds.retain(|kind| self.filling(*kind).is_some());
        let is_of = |kind: Kind| move |sent: &&Sent| sent.kind == kind && sent.lane == Lane::Fill;
        kinds.sort_by_key(|kind| self.open.iter().filter(is_of(*kind)).count());
        kinds
    }

    /// Waits so long for the answer to any of the open requests. Returns what has become of each of its operations.
    ///
    /// # Errors
    ///
    /// Returns an error if the lead was lost meanwhile.
    pub(super) fn next_answer(&mut self, patience: Duration) -> Result<Option<Answered>, Error> {
        while let Some((number, answer)) = self.senders.next_answer(patience) {
            // Nobody waits for those of a term that is over.
            if let Some(place) = self.open.iter().position(|sent| sent.number == number) {
                let sent = self.open.remove(place);
                let outcomes = self.combine(sent.kind, answer);
                return Ok(Some((sent, outcomes)));
            }
        }
        self.check_leadership()?;
        Ok(None)
    }

    /// Sends operations, and waits for the answer. Returns an outcome for each.
    pub(super) fn send(&mut self, kind: Kind, body: BulkPart<'_>) -> Result<Vec<Outcome>, Error> {
        self.senders.wait_for_turn(body.operations());
        let answer = send_each_way(&self.ways(kind), |way| way.send(self.elasticsearch, body));
        self.combine(kind, answer)
    }

    /// To the live index, and to the new one if there is one: an operation counts as done when both have done it.
    fn ways(&self, kind: Kind) -> Vec<Way> {
        let way = |name: String| Way {
            alias: Index::write_alias(&name, self.epoch),
            timeout: self.limits.timeout,
            lead: self.leadership.pulse(),
        };
        self.index_names(kind).into_iter().map(way).collect()
    }

    /// Returns what has become of operations that one or two indices were to carry out. What only the new one
    /// refuses, or does not take for minutes, ends the rebuild.
    fn combine(&mut self, kind: Kind, answer: Answer) -> Result<Vec<Outcome>, Error> {
        let mut answers = answer.into_iter();
        let live = answers.next().expect("there is a way")?;
        let Some(others) = answers.next() else { return Ok(live) };
        let is_trouble = match &others {
            Ok(others) => {
                others.iter().any(Outcome::concerns_request)
                    && !live.iter().any(Outcome::concerns_request)
            }
            Err(err) => matches!(err, Error::Elasticsearch(_)),
        };
        let refusal = match &others {
            _ if is_trouble && note_trouble(&mut self.conn, kind)? => {
                Some("it has taken nothing for minutes, although the live one has".to_owned())
            }
            Ok(others) => find_refusal(&live, others),
            Err(_) => None,
        };
        if let Some(refusal) = refusal {
            if let [_, new] = self.index_names(kind).as_slice() {
                rebuild::give_up(
                    &mut self.conn,
                    self.elasticsearch,
                    kind,
                    self.epoch,
                    new,
                    &refusal,
                )?;
            }
            return Err(Error::Rival(format!("the rebuild of {kind} was stopped")));
        }
        Ok(live.into_iter().zip(others?).map(|(a, b)| a.and(b)).collect())
    }
}

/// Finds what the new index refuses although the live one has it.
fn find_refusal(live: &[Outcome], new: &[Outcome]) -> Option<String> {
    live.iter().zip(new).find_map(|outcomes| match outcomes {
        (Outcome::Acknowledged, Outcome::Rejected { error_type, reason }) => {
            Some(format!("it refuses a document: {error_type}: {reason}"))
        }
        _ => None,
    })
}
