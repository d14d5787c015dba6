//! Where does a task live, and since when?
//!
//! Its home is the open node that its memory would be best on in this tick; a
//! residence is the time for which that stays so. Threads that spread have the
//! home that they had.

use serde::{Deserialize, Serialize};

use crate::model::{Nanos, Node};
use crate::policy::cost::Costs;
use crate::policy::lanes::Lanes;

/// Another node is home only if the old one loses so many times what it loses: samples of CPU time
/// scatter, and two nodes that are nearly alike must not take turns.
const CLEARLY: f64 = 2.0;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Home {
    node: Option<u16>,
    /// Beginning of the tick in which it was first seen here.
    pub(crate) since: Nanos,
}

impl Home {
    pub(crate) fn node(self) -> Option<Node> {
        self.node.map(Node)
    }

    /// Seconds since it came here.
    pub(crate) fn age(self, now: Nanos) -> f64 {
        now.saturating_sub(self.since) as f64 / 1e9
    }

    /// Takes in one tick; says how many seconds the last residence took, if it has ended.
    pub(crate) fn step(
        &mut self,
        costs: &Costs,
        walls: &Lanes,
        now: Nanos,
        dt: Nanos,
    ) -> Option<f64> {
        let began = now.saturating_sub(dt);
        let mut least = (f64::INFINITY, 0);
        for ((loss, wall), node) in costs.loss.iter().zip(walls.iter()).zip(0..) {
            if loss + wall < least.0 {
                least = (loss + wall, node);
            }
        }
        let (best, node) = least;
        if best.is_infinite() {
            return None;
        }
        let old = self.node.map(usize::from);
        let here = old.and_then(|old| Some(costs.loss.get(old)? + walls.get(old)?));
        if here.is_some_and(|here| here <= CLEARLY * best) {
            return None;
        }
        let stayed = self.node.map(|_| self.age(began));
        *self = Self { node: Some(node), since: began };
        stayed
    }
}

#[cfg(test)]
mod tests {
    use super::Home;
    use crate::model::{Nanos, Node};
    use crate::policy::cost::Costs;
    use crate::policy::lanes::walls;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn a_residence_ends_when_another_node_is_clearly_better() {
        let mut home = Home::default();
        assert_eq!(step(&mut home, 1, &[1.0, 0.0]), None);
        assert_eq!(step(&mut home, 2, &[1.0, 0.0]), None);
        // Half of a tick on either, then on the other.
        assert_eq!(step(&mut home, 3, &[0.5, 0.5]), None);
        assert_eq!(step(&mut home, 4, &[0.0, 1.0]), Some(3.0));
        assert_eq!((home.node(), home.age(4 * SECOND)), (Some(Node(0)), 1.0));
    }

    #[test]
    fn threads_that_spread_keep_their_home() {
        let mut home = Home::default();
        step(&mut home, 1, &[0.4, 0.6]);
        for second in 2..100 {
            let share = if second % 2 == 0 { 0.45 } else { 0.55 };
            assert_eq!(step(&mut home, second, &[share, 1.0 - share]), None);
        }
    }

    #[test]
    fn a_node_that_closes_is_no_home() {
        let mut home = Home::default();
        step(&mut home, 1, &[0.0, 1.0]);
        let costs = Costs { loss: vec![0.0, 1.0].into(), ..Costs::default() };
        assert_eq!(
            home.step(&costs, &walls([false, true].into_iter()), 2 * SECOND, SECOND),
            Some(1.0)
        );
        assert_eq!(home.node(), Some(Node(1)));
    }

    fn step(home: &mut Home, second: Nanos, loss: &[f64]) -> Option<f64> {
        let costs = Costs { loss: loss.to_vec().into(), ..Costs::default() };
        home.step(&costs, &walls(loss.iter().map(|_| true)), second * SECOND, SECOND)
    }
}
