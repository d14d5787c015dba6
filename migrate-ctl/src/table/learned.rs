//! What people may see of what was learned: prices, hits, benefit and the modelled sums.

use crate::config::PolicyConfig;
use crate::model::{Est, Node};
use crate::policy::prices::PageSize;
use crate::table::feedback::Benefit;
use crate::table::{Modelled, Table};

/// As of the last tick.
#[derive(Clone, Debug, Default)]
pub struct Learned {
    /// Of pairs between which something was moved.
    pub prices: Vec<PagePrice>,
    /// Share of the last predictions that came true; none before the first.
    pub hit_rate: Option<f64>,
    /// Share of the moves that is held back now.
    pub hold_back: f64,
    pub benefit: Benefit,
    pub modelled: Modelled,
}

/// Seconds that the application loses for a page of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PagePrice {
    pub size: PageSize,
    pub from: Node,
    pub to: Node,
    pub price: Est,
}

impl Table {
    /// For the snapshot.
    pub fn learned(&self, config: &PolicyConfig) -> Learned {
        let price = |(size, from, to)| {
            let price = self.prices.page(size, from, to, config);
            PagePrice { size, from, to, price }
        };
        Learned {
            prices: self.prices.known().map(price).collect(),
            hit_rate: self.feedback.hit_rate(),
            hold_back: self.feedback.hold_back(config.hold_back),
            benefit: self.feedback.benefit(),
            modelled: self.modelled(),
        }
    }
}
