//! What would a tick have shown, had the memory been elsewhere?
//!
//! Recorded or generated ticks show each process's memory where it really was.
//! Here other moves are made than then: their effect on the placement and on
//! the CPU time that the same work takes is written into the tick, by the
//! policy's own model. Each move is carried out whole and at once.

use std::collections::BTreeMap;

use crate::model::{
    Decision, DomainObs, End, Est, Input, Leg, Nanos, NodeObs, NodeVec, Order, Outcome, PidRef,
    Source, Tick, Verdict,
};
use crate::policy::cost;

/// Where memory is, if not where the ticks show it.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Share of the pages by node.
    places: BTreeMap<PidRef, NodeVec<f32>>,
}

impl World {
    /// A move was made then. Here it is not: the memory stays where it was before. Says whether it
    /// has been where the ticks show it until now.
    pub fn unmake(&mut self, before: &DomainObs) -> bool {
        let Some(pages) = pages(before) else { return false };
        let new = !self.places.contains_key(&before.id);
        self.places.entry(before.id).or_insert_with(|| shares(pages));
        new
    }

    /// The memory is where the ticks show it.
    pub fn follow(&mut self, id: PidRef) {
        self.places.remove(&id);
    }

    /// Rewrites what was seen.
    pub fn show(&mut self, tick: &mut Tick) {
        for id in &tick.gone {
            self.places.remove(id);
        }
        for domain in &mut tick.domains {
            if let Some(place) = self.places.get(&domain.id) {
                put(domain, place, &tick.nodes);
            }
        }
    }

    /// Makes the moves; gives what the mover would have told the table.
    pub fn carry_out(&mut self, decisions: &[Decision]) -> Vec<Input> {
        let mut told = Vec::new();
        for decision in decisions {
            let order = match &decision.verdict {
                Verdict::Stay => continue,
                Verdict::Move(order) => order,
                Verdict::HoldBack(order) => {
                    told.push(Input::HeldBack(Order::clone(order)));
                    continue;
                }
            };
            let whole = |n| if n == order.to { 1.0 } else { 0.0 };
            self.places.insert(order.target, NodeVec::from_fn(order.from.len(), whole));
            told.push(Input::Ordered(Order::clone(order)));
            told.push(Input::Progress(arrived(order)));
        }
        told
    }
}

/// All of it, as the mover would report.
pub(crate) fn arrived(order: &Order) -> Outcome {
    let Order { to, pages: moved, .. } = *order;
    let from = order.from.iter().find_map(|(node, &from)| from.then_some(node)).unwrap_or(to);
    let legs = vec![Leg { from, moved, huge: 0, failed: 0, duration: 1 }];
    Outcome { legs, duration: 1, ..Outcome::of(order, End::Done) }
}

fn pages(domain: &DomainObs) -> Option<&NodeVec<Est>> {
    let pages = domain.extents.first().map(|extent| &extent.pages);
    pages.filter(|pages| total(pages) > 0.0)
}

fn total(pages: &NodeVec<Est>) -> f32 {
    pages.values().map(|est| est.mid).sum()
}

fn shares(pages: &NodeVec<Est>) -> NodeVec<f32> {
    let total = total(pages);
    NodeVec::from_fn(pages.len(), |n| pages[n].mid / total)
}

fn put(domain: &mut DomainObs, place: &NodeVec<f32>, nodes: &NodeVec<NodeObs>) {
    let bound = domain.boundness;
    let Some(extent) = domain.extents.first_mut() else { return };
    let total = total(&extent.pages);
    let count = nodes.len();
    if [place.len(), extent.pages.len(), domain.cpu.len()] != [count; 3] || total <= 0.0 {
        return;
    }
    let was = shares(&extent.pages);
    let all = |cpu: &NodeVec<Nanos>| cpu.values().map(|&nanos| nanos as f64).sum::<f64>();
    let before = all(&domain.cpu);
    for (obs, cpu) in nodes.values().zip(domain.cpu.values_mut()) {
        *cpu = again(*cpu, stretch(bound, obs, &was), stretch(bound, obs, place));
    }
    if before > 0.0 {
        domain.calls_cpu = again(domain.calls_cpu, before, all(&domain.cpu));
    }
    let source = Source::Prior;
    extent.pages = NodeVec::from_fn(count, |n| Est::exact((place[n] * total).round(), source));
}

/// By how much memory at this place stretches the work of these CPUs.
fn stretch(bound: Est, node: &NodeObs, place: &NodeVec<f32>) -> f64 {
    let slowness =
        place.iter().map(|(n, &share)| f64::from(share) * cost::slowness(node, usize::from(n.0)));
    cost::stretch(cost::bound(bound), slowness.sum())
}

/// The CPU time of the same work.
fn again(cpu: Nanos, was: f64, is: f64) -> Nanos {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and a float cast saturates"
    )]
    let again = (cpu as f64 * is / was).round() as Nanos;
    again
}

#[cfg(test)]
mod tests {
    use super::World;
    use crate::config::Config;
    use crate::model::{Decision, Nanos, Tick, Verdict};
    use crate::policy::decide;
    use crate::simulation::fleet::Fleet;
    use crate::simulation::machines::Machine;
    use crate::simulation::traces::Law;
    use crate::table::Table;

    /// Once moved, a process takes less CPU time for the same work; had the move not been made, it
    /// would take as long as before.
    #[test]
    fn a_move_shows_in_the_placement_and_in_the_cpu_time() {
        let (before, decisions) = due();
        let mut world = World::default();
        assert_eq!(world.carry_out(&decisions).len(), 2);
        let mut after = before.clone();
        world.show(&mut after);
        assert_eq!(on_first(&after), 0.0);
        let bound = f64::from(before.domains[0].boundness.low);
        let ratio = cpu(&before) as f64 / cpu(&after) as f64;
        assert!((ratio - (1.0 + bound)).abs() < 1e-6, "{ratio}, not 1 + {bound}");

        let mut unmade = World::default();
        unmade.unmake(&before.domains[0]);
        let mut again = after.clone();
        unmade.show(&mut again);
        assert_eq!(on_first(&again), on_first(&before));
        assert!(cpu(&again).abs_diff(cpu(&before)) <= 1);
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let (before, decisions) = due();
        let mut world = World::default();
        world.carry_out(&decisions);
        let mut last = Tick { gone: vec![before.domains[0].id], ..before.clone() };
        world.show(&mut last);
        assert_eq!(last.domains, before.domains);
    }

    /// The tick after which the memory of a stranded process is due to follow.
    fn due() -> (Tick, Vec<Decision>) {
        let mut fleet = Fleet::new(1, 1, &Machine::uniform(2), Some(Law::Stay));
        let (mut table, mut config) = (Table::default(), Config::default());
        config.policy.hold_back = 0.0;
        for _ in 0..3_000 {
            let tick = fleet.tick();
            let decisions = decide(&mut table, &config, &tick);
            if matches!(decisions[0].verdict, Verdict::Move(_)) {
                return (tick, decisions);
            }
        }
        panic!("never due")
    }

    fn on_first(tick: &Tick) -> f32 {
        tick.domains[0].extents[0].pages.values().next().unwrap().mid
    }

    fn cpu(tick: &Tick) -> Nanos {
        tick.domains[0].cpu.values().sum()
    }
}
