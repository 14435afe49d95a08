//! The protocol as a machine of small steps: two instances with a cache each, a Redis and the one that may take its place,
//! a change log, a bus that may lose every message, and everything that may go wrong between two steps.
//!
//! There is one entry with one guard, and there are two writes that touch it: what is shown is the set of writes that it
//! includes. Time does not occur. An instance that has *applied* a write (its own and answered, told by the bus, or read
//! from the log) must not show less from then on; before that it may, and when it reads the log is a matter of clocks.
//!
//! Steps that nobody can tell apart from one are one, and what no step can use any more is forgotten ([`State::forget`]):
//! there would be too many states otherwise.

use stateright::Model;

use super::steps;

/// A set of writes.
pub type Writes = u8;
pub const INSTANCES: usize = 2;
pub const WRITES: usize = 2;

/// The parts of the protocol, each of which can be left out.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// The guard is captured before the load, and not when its result is stored.
    pub capture: bool,
    /// What the log has is applied.
    pub reconcile: bool,
    /// A token is served from caches only where its write was applied.
    pub token: bool,
    /// Local guards move after the guard in Redis was deleted. (That they move before it as well makes others see a write
    /// earlier, which nothing here depends on.)
    pub move_after: bool,
    /// The log is read by what a snapshot has not seen, not by what is above the largest number.
    pub snapshot: bool,
    /// A guard that is missing gets a nonce that never was, not number 0.
    pub nonces: bool,
    /// A value counts only on the server it was captured on.
    pub server_in_values: bool,
    /// A message makes its writes applied only if it came by the server that the instance is linked to.
    pub server_in_messages: bool,
    /// A new link is used for reading only after what its server may lack was deleted there.
    pub catch_up: bool,
}

impl Parts {
    pub const ALL: Self = Self {
        capture: true,
        reconcile: true,
        token: true,
        move_after: true,
        snapshot: true,
        nonces: true,
        server_in_values: true,
        server_in_messages: true,
        catch_up: true,
    };
}

/// How often what may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// How many of the writes; the others have happened, and are known to all.
    pub writes: u8,
    pub loads: u8,
    pub crashes: u8,
    pub lost_links: u8,
    pub evictions: u8,
    /// Of the second server, after it got what the first one had at some time.
    pub promotions: u8,
    pub copies: u8,
}

/// A model to be checked.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub parts: Parts,
    pub budget: Budget,
    /// Which instance makes each write.
    pub writers: [usize; WRITES],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub committed: Writes,
    pub writes: [Write; WRITES],
    pub instances: [Instance; INSTANCES],
    /// The first one, and the one that may take its place.
    pub servers: [Server; 2],
    pub is_promoted: bool,
    /// Messages on their way, by who gets them and the server they go by.
    pub messages: [[Writes; 2]; INSTANCES],
    pub next_nonce: u8,
    pub budget: Budget,
    /// A read was answered with less than it had to show.
    pub was_served_old: bool,
}

/// How far a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Waiting,
    Committed,
    Published,
    Answered,
    /// Its instance was killed after the commit.
    Orphaned,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    /// What the reconciler takes for applied.
    pub seen: Writes,
    pub link: Option<u8>,
    /// The server that it has caught up with.
    pub caught_up: Option<u8>,
    /// A guard is still to be deleted in Redis.
    pub is_pending: bool,
    /// An entry, while its guard is current.
    pub l1: Option<Writes>,
    pub load: Option<Load>,
    /// What a round of reconciling has read, and told Redis.
    pub round: Option<Writes>,
}

/// A load in the air. Its guards have been captured, the local one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Load {
    /// The local guard has not moved since.
    pub is_current: bool,
    /// The guard in Redis, if it may fill.
    pub guard: Option<Guard>,
    /// What was found in Redis or in the database.
    pub value: Option<Writes>,
}

/// A nonce, and the server it was found on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    pub nonce: u8,
    pub server: u8,
}

/// A value with what it was captured under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    pub shows: Writes,
    pub guard: Guard,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    pub nonce: Option<u8>,
    pub value: Option<Value>,
    /// Writes whose deletions have surely been here.
    pub through: Writes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Commit(usize),
    Publish(usize),
    Answer(usize),
    Deliver {
        to: usize,
        write: usize,
        server: u8,
    },
    ReadLog(usize),
    FinishRound(usize),
    Begin(usize),
    Load(usize),
    Land(usize),
    Crash(usize),
    LoseLink(usize),
    Link {
        instance: usize,
        server: u8,
    },
    CatchUp(usize),
    DeletePending(usize),
    EvictGuard(u8),
    EvictValue(u8),
    /// The second server has what the first one has now, and nothing later.
    Replicate,
    Promote,
}

impl State {
    pub fn answered(&self) -> Writes {
        let answered = |(write, state): (usize, &Write)| u8::from(*state == Write::Answered) << write;
        self.writes.iter().enumerate().map(answered).sum()
    }

    /// The server whose values an instance may serve.
    pub fn readable(&self, instance: usize, parts: Parts) -> Option<u8> {
        let instance = &self.instances[instance];
        let has_caught_up = !parts.catch_up || instance.caught_up == instance.link;
        instance.link.filter(|_| !instance.is_pending && has_caught_up)
    }

    /// The value there, if it is valid.
    pub fn valid(&self, server: u8, parts: Parts) -> Option<Writes> {
        let Server { nonce, value, .. } = self.servers[usize::from(server)];
        let value = value.filter(|value| nonce == Some(value.guard.nonce))?;
        (!parts.server_in_values || value.guard.server == server).then_some(value.shows)
    }

    /// What an answer must show that this instance may give from its caches, to whoever asks with whatever token.
    pub fn demand(&self, instance: usize, parts: Parts) -> Writes {
        let seen = self.instances[instance].seen;
        if parts.token { seen } else { seen | self.answered() }
    }

    /// Moves the local guard. Who waits for a load until now has to see what must be shown until now.
    pub fn advance(&mut self, index: usize, parts: Parts) {
        let demand = self.demand(index, parts);
        let instance = &mut self.instances[index];
        instance.l1 = None;
        let Some(load) = &mut instance.load else { return };
        if load.is_current {
            self.was_served_old |= load.value.is_some_and(|value| value & demand != demand);
            load.is_current = false;
        }
    }

    /// Deletes the guard in Redis, and publishes the writes that are the reason.
    pub fn delete_guard(&mut self, instance: usize, writes: Writes) {
        let Some(server) = self.instances[instance].link else {
            self.instances[instance].is_pending = true;
            return;
        };
        self.servers[usize::from(server)].nonce = None;
        for other in (0..INSTANCES).filter(|other| *other != instance) {
            self.messages[other][usize::from(server)] |= writes;
        }
    }

    /// Everything in the process is lost; the log is followed from what it has now on.
    pub fn restart(&mut self, instance: usize, writers: [usize; WRITES]) {
        for (write, writer) in writers.into_iter().enumerate() {
            if writer == instance && !matches!(self.writes[write], Write::Waiting | Write::Answered) {
                self.writes[write] = Write::Orphaned;
            }
        }
        self.instances[instance] = Instance { seen: self.committed, link: self.instances[instance].link, ..Instance::new() };
    }

    /// Drops what no step can use any more, and numbers nonces anew in the order in which they are found.
    pub fn forget(&mut self, parts: Parts) {
        for (messages, instance) in self.messages.iter_mut().zip(&self.instances) {
            // A message that comes too late would only empty a cache.
            messages.iter_mut().for_each(|writes| *writes &= !instance.seen);
        }
        if self.budget.crashes == 0 && self.budget.promotions == 0 && !self.is_promoted {
            let is_used = self.instances.iter().any(|instance| instance.caught_up.is_none());
            self.servers.iter_mut().filter(|_| !is_used).for_each(|server| server.through = 0);
        }
        if self.is_promoted {
            // Nobody comes back to the first server.
            let is_left = self.instances.iter().all(|instance| instance.link != Some(0));
            if is_left {
                self.servers[0] = Server::default();
            }
            for instance in self.instances.iter_mut().filter(|instance| instance.link != Some(0)) {
                instance.caught_up = instance.caught_up.filter(|server| *server == 1);
            }
            let has_all = self.instances.iter().all(|instance| instance.caught_up == Some(1));
            if has_all && self.budget.crashes == 0 {
                self.servers[1].through = 0;
            }
        }
        if !parts.nonces {
            return;
        }
        let living = self.servers.map(|server| server.nonce);
        for server in &mut self.servers {
            server.value = server.value.filter(|value| Some(value.guard.nonce) == server.nonce);
        }
        let mut known = Vec::new();
        let mut number = |nonce: &mut u8| {
            let at = known.iter().position(|known| known == nonce).unwrap_or_else(|| {
                known.push(*nonce);
                known.len() - 1
            });
            *nonce = at as u8;
        };
        for Server { nonce, value, .. } in &mut self.servers {
            nonce.iter_mut().for_each(&mut number);
            value.iter_mut().for_each(|value| number(&mut value.guard.nonce));
        }
        for instance in &mut self.instances {
            // Nonces never return.
            if let Some(load) = &mut instance.load {
                load.guard = load.guard.filter(|guard| living.contains(&Some(guard.nonce)));
                load.guard.iter_mut().for_each(|guard| number(&mut guard.nonce));
            }
            instance.load = instance.load.filter(|load| load.is_current || !parts.capture || load.guard.is_some());
        }
        self.next_nonce = known.len() as u8;
    }
}

impl Instance {
    pub fn new() -> Self {
        Self { seen: 0, link: Some(0), caught_up: None, is_pending: false, l1: None, load: None, round: None }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let known: Writes = (self.budget.writes..WRITES as u8).map(|write| 1 << write).sum();
        let write = |write: usize| if known >> write & 1 == 0 { Write::Waiting } else { Write::Answered };
        let instance = || Instance { seen: known, caught_up: Some(0), ..Instance::new() };
        let state = State {
            committed: known,
            writes: std::array::from_fn(write),
            instances: std::array::from_fn(|_| instance()),
            servers: [Server { through: known, ..Server::default() }, Server::default()],
            is_promoted: false,
            messages: [[0; 2]; INSTANCES],
            next_nonce: 0,
            budget: self.budget,
            was_served_old: false,
        };
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        steps::of_writes(self, state, actions);
        for instance in 0..INSTANCES {
            steps::of_instance(self, state, instance, actions);
        }
        steps::of_redis(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        steps::take(self, &mut state, action);
        state.forget(self.parts);
        Some(state)
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        super::properties()
    }
}
