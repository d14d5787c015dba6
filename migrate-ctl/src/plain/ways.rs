//! How does the clairvoyant go: the cheapest way to end in each state, with its moves.
//!
//! Its costs are those of the work function, by the same steps; a test holds
//! the two together.

use crate::plain::Spent;
use crate::policy::cost::Costs;
use crate::policy::lanes::Lanes;

/// One way per state; the last state is `as placed`.
#[derive(Clone, Debug, Default)]
pub(super) struct Ways(Vec<Spent>);

impl Ways {
    pub(super) fn step(&mut self, costs: &Costs, walls: &Lanes) {
        let count = costs.loss.len();
        if self.0.len() != count + 1 {
            let begin = (0..count).map(|node| Spent::default().and(costs, node));
            self.0 = begin.chain([Spent::default()]).collect();
        }
        let Some((here, nodes)) = self.0.split_last_mut() else { return };
        here.seconds += costs.loss_as_placed;
        for ((way, loss), wall) in nodes.iter_mut().zip(costs.loss.iter()).zip(walls.iter()) {
            way.seconds += loss + wall;
        }
        let from_here = *here;
        let from_node = cheapest(nodes).whole(costs);
        for ((node, way), wall) in nodes.iter_mut().enumerate().zip(walls.iter()) {
            here.better(way.and(costs, node));
            if wall.is_finite() {
                way.better(from_node);
                way.better(from_here.and(costs, node));
            }
        }
    }

    pub(super) fn cheapest(&self) -> Spent {
        let cheapest = cheapest(&self.0);
        if cheapest.seconds.is_finite() { cheapest } else { Spent::default() }
    }
}

/// The first of those that cost least.
fn cheapest(ways: &[Spent]) -> Spent {
    let mut best = Spent { seconds: f64::INFINITY, ..Spent::default() };
    ways.iter().for_each(|&way| best.better(way));
    best
}

impl Spent {
    /// And then a move between `as placed` and this node.
    fn and(mut self, costs: &Costs, node: usize) -> Self {
        let seconds = costs.price[node];
        if seconds > 0.0 {
            self += Self { seconds, moves: 1, pages: costs.off_node(node) };
        }
        self
    }

    /// And then a move of everything from one node to another.
    fn whole(mut self, costs: &Costs) -> Self {
        let all = costs.total.clamp(0.0, 1e12);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let pages = all.round() as u64;
        self += Self { seconds: costs.whole_price, moves: 1, pages };
        self
    }

    fn better(&mut self, other: Self) {
        if other.seconds < self.seconds {
            *self = other;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, proptest};

    use super::Ways;
    use crate::policy::cost::Costs;
    use crate::policy::lanes::walls;
    use crate::policy::work::Work;

    proptest! {
        #[test]
        fn costs_what_the_work_function_says(
            ticks in prop::collection::vec((prop::collection::vec(0.0..9.0_f64, 4), prop::collection::vec(0.0..5.0_f64, 3)), 1..60),
            closed in 0..4_usize,
        ) {
            let (mut ways, mut work) = (Ways::default(), Work::default());
            let walls = walls((0..3).map(|node| node != closed));
            for (loss, price) in ticks {
                let whole_price = price.iter().copied().fold(0.0, f64::max);
                let (loss_as_placed, loss) = (loss[3], loss[..3].to_vec().into());
                let (price, pages) = (price.into(), vec![1.0; 3].into());
                let costs = Costs {
                    loss, loss_as_placed, price, whole_price, pages, total: 3.0, ..Costs::default()
                };
                ways.step(&costs, &walls);
                work.step(&costs, &walls, false);
                let (seconds, optimum) = (ways.cheapest().seconds, work.optimum());
                prop_assert!((seconds - optimum).abs() <= 1e-9 * optimum.max(1.0), "{seconds}, not {optimum}");
            }
        }
    }
}
