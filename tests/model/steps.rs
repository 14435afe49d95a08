//! The steps: which of them are possible, and what each does.

use super::protocol::{Action, Guard, INSTANCES, Load, Protocol, Server, State, Value, WRITES, Write, Writes};

pub fn of_writes(protocol: &Protocol, state: &State, actions: &mut Vec<Action>) {
    for write in 0..WRITES {
        match state.writes[write] {
            Write::Waiting => actions.push(Action::Commit(write)),
            Write::Committed => actions.push(Action::Publish(write)),
            Write::Published => actions.push(Action::Answer(write)),
            Write::Answered | Write::Orphaned => {}
        }
        for (to, server) in (0..INSTANCES).flat_map(|to| [(to, 0), (to, 1)]) {
            if state.messages[to][usize::from(server)] & (1 << write) != 0 {
                actions.push(Action::Deliver { to, write, server });
            }
        }
    }
    // Two writes that are alike come in one order.
    if protocol.writers[0] == protocol.writers[1] && protocol.parts.snapshot && state.writes[0] == Write::Waiting {
        actions.retain(|action| *action != Action::Commit(1));
    }
}

pub fn of_instance(protocol: &Protocol, state: &State, index: usize, actions: &mut Vec<Action>) {
    let instance = &state.instances[index];
    match instance.round {
        None if instance.seen != state.committed => actions.push(Action::ReadLog(index)),
        None => {}
        Some(_) => actions.push(Action::FinishRound(index)),
    }
    match instance.load {
        None if instance.l1.is_none() && state.budget.loads > 0 => actions.push(Action::Begin(index)),
        None => {}
        Some(Load { value: None, .. }) => actions.push(Action::Load(index)),
        Some(_) => actions.push(Action::Land(index)),
    }
    if state.budget.crashes > 0 {
        actions.push(Action::Crash(index));
    }
    match instance.link {
        Some(server) => {
            if state.budget.lost_links > 0 {
                actions.push(Action::LoseLink(index));
            }
            if state.is_promoted && server == 0 {
                actions.push(Action::Link { instance: index, server: 1 });
            }
            if instance.is_pending {
                actions.push(Action::DeletePending(index));
            }
            if protocol.parts.catch_up && instance.caught_up != instance.link {
                actions.push(Action::CatchUp(index));
            }
        }
        None => actions.push(Action::Link { instance: index, server: u8::from(state.is_promoted) }),
    }
}

pub fn of_redis(state: &State, actions: &mut Vec<Action>) {
    for server in [0, 1] {
        let Server { nonce, value, .. } = state.servers[usize::from(server)];
        if state.budget.evictions > 0 && nonce.is_some() {
            actions.push(Action::EvictGuard(server));
        }
        if state.budget.evictions > 0 && value.is_some() {
            actions.push(Action::EvictValue(server));
        }
    }
    if state.budget.promotions > 0 {
        actions.push(Action::Promote);
        if state.budget.copies > 0 && state.servers[0] != Server::default() {
            actions.push(Action::Replicate);
        }
    }
}

pub fn take(protocol: &Protocol, state: &mut State, action: Action) {
    match action {
        Action::Commit(write) => {
            state.committed |= 1 << write;
            state.writes[write] = Write::Committed;
            if !protocol.parts.move_after {
                state.advance(protocol.writers[write], protocol.parts);
            }
        }
        Action::Publish(write) => {
            state.delete_guard(protocol.writers[write], 1 << write);
            state.writes[write] = Write::Published;
        }
        Action::Answer(write) => {
            let writer = protocol.writers[write];
            if protocol.parts.move_after {
                state.advance(writer, protocol.parts);
            }
            state.instances[writer].seen |= 1 << write;
            state.writes[write] = Write::Answered;
        }
        Action::Deliver { to, write, server } => {
            state.messages[to][usize::from(server)] &= !(1 << write);
            state.advance(to, protocol.parts);
            let instance = &mut state.instances[to];
            if !protocol.parts.server_in_messages || instance.link == Some(server) {
                instance.seen |= 1 << write;
            }
        }
        Action::ReadLog(index) => read_log(protocol, state, index),
        Action::FinishRound(index) => {
            let snapshot = state.instances[index].round.take().unwrap();
            state.advance(index, protocol.parts);
            finish(state, index, snapshot);
        }
        Action::CatchUp(index) => catch_up(state, index),
        Action::Begin(index) => begin(protocol, state, index),
        Action::Load(index) => {
            let committed = state.committed;
            state.instances[index].load.as_mut().unwrap().value = Some(committed);
        }
        Action::Land(index) => land(protocol, state, index),
        Action::Crash(instance) => {
            state.budget.crashes -= 1;
            state.restart(instance, protocol.writers);
        }
        Action::LoseLink(_)
        | Action::Link { .. }
        | Action::DeletePending(_)
        | Action::EvictGuard(_)
        | Action::EvictValue(_)
        | Action::Replicate
        | Action::Promote => redis(state, action),
    }
}

/// Reads the log, and deletes and publishes what is new: a write that comes between the two is read next time.
fn read_log(protocol: &Protocol, state: &mut State, index: usize) {
    let seen = state.instances[index].seen;
    if !protocol.parts.reconcile {
        // It believes that it has done it.
        return finish(state, index, state.committed);
    }
    let fresh = state.committed & !if protocol.parts.snapshot { seen } else { up_to_largest(seen) };
    if fresh == 0 {
        return finish(state, index, state.committed);
    }
    state.delete_guard(index, fresh);
    state.instances[index].round = Some(state.committed);
}

/// All transactions with numbers up to that of the last one of these.
fn up_to_largest(writes: Writes) -> Writes {
    if writes & 0b10 != 0 { 0b11 } else { writes }
}

fn finish(state: &mut State, index: usize, snapshot: Writes) {
    let instance = &mut state.instances[index];
    instance.seen |= snapshot;
    let server = instance.link.filter(|server| !instance.is_pending && instance.caught_up == Some(*server));
    if let Some(server) = server {
        state.servers[usize::from(server)].through |= snapshot;
    }
}

/// Deletes on a server that is new to this instance what is not known to have been deleted there.
fn catch_up(state: &mut State, index: usize) {
    let server = state.instances[index].link.unwrap();
    let missing = state.committed & !state.servers[usize::from(server)].through;
    if missing != 0 {
        state.delete_guard(index, missing);
    }
    state.servers[usize::from(server)].through |= state.committed;
    state.instances[index].caught_up = Some(server);
}

/// Captures the local guard, and asks Redis for the value and, if there is none, for the guard.
fn begin(protocol: &Protocol, state: &mut State, index: usize) {
    state.budget.loads -= 1;
    let server = state.readable(index, protocol.parts);
    let value = server.and_then(|server| state.valid(server, protocol.parts));
    let mut guard = None;
    if let (None, Some(server)) = (value, server) {
        let fresh = if protocol.parts.nonces { state.next_nonce } else { 0 };
        let nonce = *state.servers[usize::from(server)].nonce.get_or_insert(fresh);
        guard = Some(Guard { nonce, server });
    }
    state.instances[index].load = Some(Load { is_current: true, guard, value });
}

/// Answers those who wait for a load, and keeps what it brought as long as nothing has moved.
fn land(protocol: &Protocol, state: &mut State, index: usize) {
    let Load { is_current, guard, value } = state.instances[index].load.take().unwrap();
    let shows = value.unwrap();
    let demand = state.demand(index, protocol.parts);
    state.was_served_old |= is_current && shows & demand != demand;
    if is_current || !protocol.parts.capture {
        state.instances[index].l1 = Some(shows);
    }
    if let (Some(guard), Some(server)) = (guard, state.readable(index, protocol.parts)) {
        state.servers[usize::from(server)].value = Some(Value { shows, guard });
    }
}

fn redis(state: &mut State, action: Action) {
    match action {
        Action::LoseLink(index) => {
            state.budget.lost_links -= 1;
            state.instances[index].link = None;
        }
        Action::Link { instance, server } => state.instances[instance].link = Some(server),
        Action::DeletePending(index) => {
            state.instances[index].is_pending = false;
            state.delete_guard(index, 0);
        }
        Action::EvictGuard(server) => {
            state.budget.evictions -= 1;
            state.servers[usize::from(server)].nonce = None;
        }
        Action::EvictValue(server) => {
            state.budget.evictions -= 1;
            state.servers[usize::from(server)].value = None;
        }
        Action::Replicate => {
            state.budget.copies -= 1;
            // What is known of one server says nothing about another.
            state.servers[1] = Server { through: 0, ..state.servers[0] };
        }
        Action::Promote => {
            state.budget.promotions -= 1;
            state.budget.copies = 0;
            state.is_promoted = true;
        }
        _ => unreachable!("not a step of Redis"),
    }
}
