//! What was learned of each cgroup's residences.
//!
//! Bounded: where there are too many cgroups, those without living processes
//! are forgotten, and who still finds no place shares one with the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::policy::residences::Residences;

/// Cgroups of which something is remembered.
const KEPT: usize = 4_096;
/// Survival functions and plans that are made anew in a tick: some 20 µs each. One that waits for
/// its turn is as old as a few residences of many.
const LEARNED: usize = 16;

/// Position of a class; the first is of those that found no place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClassId(usize);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Classes {
    names: BTreeMap<Arc<str>, usize>,
    classes: Vec<Class>,
    free: Vec<usize>,
    /// The next class that learns.
    turn: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename = "CgroupClass")]
struct Class {
    /// The cgroup.
    name: Arc<str>,
    residences: Residences,
    /// Rows that belong to it.
    rows: usize,
}

impl Default for Classes {
    fn default() -> Self {
        Self { names: BTreeMap::new(), classes: vec![Class::default()], free: Vec::new(), turn: 0 }
    }
}

impl Classes {
    pub(crate) fn get(&mut self, id: ClassId) -> &mut Residences {
        &mut self.classes[id.0].residences
    }

    /// Once a tick: what one process shows in it tells another one only in the next, so that their
    /// order does not matter. The classes take turns where there is much to learn.
    pub(crate) fn learn(&mut self) {
        let mut left = LEARNED;
        for _ in 0..self.classes.len() {
            if left == 0 {
                break;
            }
            left = self.classes[self.turn].residences.learn(left);
            self.turn = (self.turn + 1) % self.classes.len();
        }
    }

    /// Whether this is the class of that cgroup. Who shares one with others may find its own later.
    pub(crate) fn is(&self, id: ClassId, cgroup: &Arc<str>) -> bool {
        id != ClassId::default() && self.classes[id.0].name == *cgroup
    }

    /// The class of a row that comes from another one.
    pub(crate) fn join(&mut self, from: ClassId, cgroup: &Arc<str>) -> ClassId {
        self.leave(from);
        let at = self.find(cgroup);
        self.classes[at].rows += 1;
        ClassId(at)
    }

    /// A row goes; what it learned stays.
    pub(crate) fn leave(&mut self, id: ClassId) -> &mut Residences {
        let class = &mut self.classes[id.0];
        class.rows = class.rows.saturating_sub(1);
        &mut class.residences
    }

    fn find(&mut self, cgroup: &Arc<str>) -> usize {
        if let Some(&at) = self.names.get(cgroup) {
            return at;
        }
        if self.names.len() == KEPT {
            self.forget_empty();
        }
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.names.len() < KEPT => {
                self.classes.push(Class::default());
                self.classes.len() - 1
            }
            None => return 0,
        };
        self.names.insert(Arc::clone(cgroup), at);
        self.classes[at].name = Arc::clone(cgroup);
        at
    }

    fn forget_empty(&mut self) {
        let Self { names, classes, free, .. } = self;
        names.retain(|_, &mut at| {
            let lives = classes[at].rows > 0;
            if !lives {
                classes[at] = Class::default();
                free.push(at);
            }
            lives
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{ClassId, Classes, KEPT};
    use crate::policy::residences::Foretold;

    #[test]
    fn what_a_cgroup_has_learned_outlives_its_processes() {
        let mut classes = Classes::default();
        let id = classes.join(ClassId::default(), &"/a".into());
        for _ in 0..64 {
            classes.get(id).stayed(3_000.0, false);
        }
        classes.leave(id);
        classes.learn();
        let again = classes.join(ClassId::default(), &"/a".into());
        assert_eq!(classes.get(again).wait(30.0, 2, 0.0, &mut Foretold::default()), 0.0);
        let other = classes.join(ClassId::default(), &"/b".into());
        assert!(classes.get(other).wait(30.0, 2, 0.0, &mut Foretold::default()) > 15.0);
    }

    #[test]
    fn cgroups_without_processes_make_room_and_the_living_stay() {
        let mut classes = Classes::default();
        let kept = classes.join(ClassId::default(), &"/kept".into());
        for number in 0..3 * KEPT {
            let id = classes.join(ClassId::default(), &format!("/{number}").into());
            assert!(id != kept && id != ClassId::default());
            classes.leave(id);
        }
        assert_eq!(classes.join(ClassId::default(), &"/kept".into()), kept);
        assert!(classes.classes.len() <= KEPT + 1);
    }

    #[test]
    fn whoever_finds_no_place_shares_one() {
        let mut classes = Classes::default();
        for number in 0..KEPT {
            classes.join(ClassId::default(), &format!("/{number}").into());
        }
        assert_eq!(classes.join(ClassId::default(), &"/more".into()), ClassId::default());
    }
}
