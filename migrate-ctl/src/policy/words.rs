//! A decision in two plain sentences: what staying and moving cost, and which guard spoke with
//! what would change its mind.

use crate::model::{
    Decision, DomainObs, Est, ExtentId, Forecast, Node, NodeObs, NodeVec, Pages, Reason, Rule,
};
use crate::procfs::printable;

/// An interval is worth its words where the high end is so many times the low one.
const WIDE: f32 = 1.5;

/// What the policy thinks of a process, for people.
pub fn explain(domain: &DomainObs, decision: &Decision, nodes: &NodeVec<NodeObs>) -> String {
    let who = format!("{} ({})", printable(&domain.comm), domain.id.pid);
    let costs = [staying(&decision.forecast), moving(domain, decision, nodes)];
    let costs: Vec<String> = costs.into_iter().flatten().collect();
    let verdict = format!("{} ({}); {}.", says(decision), decision.reason.name(), change(decision));
    if costs.is_empty() {
        return format!("{who}: {verdict}");
    }
    format!("{who}: {}. {}", costs.join("; "), capitalised(&verdict))
}

/// None while nobody knows where the memory is.
fn staying(forecast: &Forecast) -> Option<String> {
    let crosses = forecast.remote?.mid * 100.0;
    let (Est { low, high, .. }, lost) = (forecast.loss_rate, forecast.lost);
    let up_to =
        if is_wide(forecast.loss_rate) { format!(" (up to {high:.3})") } else { String::new() };
    Some(format!(
        "{crosses:.0} % of its CPU time x placement crosses nodes, which loses {low:.3} s a second\
         {up_to} and has lost {lost:.2} s"
    ))
}

/// None where no node is better.
fn moving(domain: &DomainObs, decision: &Decision, nodes: &NodeVec<NodeObs>) -> Option<String> {
    let to = decision.forecast.best?;
    let pages = pages_off(domain, decision.extent, to);
    let node =
        nodes.get(to).map_or_else(|| format!("position {}", to.0), |node| node.id.to_string());
    let Est { low, mid, high, .. } = decision.forecast.price;
    let ends = if is_wide(decision.forecast.price) {
        format!(" ({low:.2} to {high:.2})")
    } else {
        String::new()
    };
    Some(format!("moving {pages} pages to node {node} would cost {mid:.2} s{ends}"))
}

fn is_wide(est: Est) -> bool {
    est.high > WIDE * est.low
}

/// What spoke.
fn says(decision: &Decision) -> &'static str {
    match (decision.reason, decision.forecast.rule) {
        (Reason::Pays, Rule::Forecast) => "tasks of its cgroup stay for long enough: it moves now",
        (Reason::Pays, Rule::WorkFunction) => "staying has lost enough: it moves now",
        (Reason::Settled, _) => "no node would be clearly better",
        (Reason::NotYet, _) => "staying has not lost enough yet",
        (Reason::NoPlacement, _) => "where its memory is could not be sampled",
        (Reason::Mempolicy, _) => "its owner set a memory policy, so the placement is deliberate",
        (Reason::MempolicyUnknown, _) => "whether its owner set a memory policy is not known",
        (Reason::Cpuset, _) => "its cpuset.mems forbids that node",
        (Reason::NoRoom, _) => {
            "that node has too little room above its high watermark and the reserve"
        }
        (Reason::RateLimit, _) => "the budget of pages is spent",
        (Reason::TooLarge, _) => {
            "that is more than one direct move may hold up, or than the budget ever holds"
        }
        (Reason::CoolDown, _) => "its last move failed or did not help",
        (Reason::Excluded, _) => "the user excluded it",
        (Reason::Moving, _) => "a move of it is under way, or its effect is being checked",
        (Reason::Spread, _) => {
            "its threads run on several nodes, and a move would leave most of the loss"
        }
        (Reason::Shared, _) => "most of its memory is mapped by other processes, too",
        (Reason::Young, _) => "it has just begun, and most processes end soon",
        (Reason::Growing, _) => "its memory grows fast, and what is new lies near its CPU anyway",
        (Reason::Swapping, _) => "it waits for pages from swap, which come back near its CPU",
        (Reason::Unmovable, _) => "most of its pages could not be moved when somebody tried",
        (Reason::TooSmall, _) => "so few pages fit into a CPU's caches",
        (Reason::SlowNode, _) => "that node has no CPUs, and such memory is no destination",
        (Reason::Reclaiming, _) => "memory of that node is being reclaimed",
        (Reason::OtherMover, _) => "somebody else is moving its pages",
        (Reason::Concurrency, _) => "as many moves are under way as may be",
        (Reason::Hurt, _) => "it ran slower after the same move before",
        (Reason::HeldBack, _) => "it would move now, and is held back to see what staying costs",
    }
}

/// What happens next, or what would have to change.
fn change(decision: &Decision) -> String {
    let Some(wait) = decision.forecast.move_in else {
        return condition(decision.reason).to_owned();
    };
    let wait = if wait < 1.0 { format!("{wait:.1} s") } else { format!("{wait:.0} s") };
    let passes = [Reason::CoolDown, Reason::Young, Reason::Unmovable, Reason::HeldBack];
    if decision.reason == Reason::NotYet {
        format!("it moves in {wait} if things stay as they are")
    } else if passes.contains(&decision.reason) {
        format!("it is tried again in {wait}")
    } else {
        condition(decision.reason).to_owned()
    }
}

/// What would have to change, where no time is known after which it does.
fn condition(reason: Reason) -> &'static str {
    match reason {
        Reason::Pays => "it stays if it leaves before its turn has come",
        Reason::Settled => "it stays unless it comes to run elsewhere",
        Reason::NotYet => {
            "tasks of its cgroup leave too soon for a move to pay, so it stays unless this one does \
             not"
        }
        Reason::NoPlacement => "it is left alone until that works",
        Reason::Mempolicy => "it stays unless the policy is taken back",
        Reason::MempolicyUnknown => "it moves once that was read and there is none",
        Reason::Cpuset => "it moves once the cpuset allows it",
        Reason::NoRoom => "it moves once memory there is free: end or move what fills it",
        Reason::RateLimit => "it moves once the budget has grown again; --rate sets how fast",
        Reason::TooLarge => "it stays unless the largest move and the burst are set higher",
        Reason::CoolDown => "it is tried again once the cool-down is over",
        Reason::Excluded => "it stays unless the filter is changed",
        Reason::Moving => "it may move again once that is over",
        Reason::Spread => {
            "it moves once one node has two thirds of its CPU time: bind its threads, if they can be"
        }
        Reason::Shared => "it moves once half of it is its own, or if they all run on one node",
        Reason::Young => "it may move once it is old enough",
        Reason::Growing => "it may move once it grows by less than half in ten seconds",
        Reason::Swapping => "it may move once that ends: give it more memory",
        Reason::Unmovable => "it is tried again once ten minutes have passed",
        Reason::TooSmall => "it stays unless it grows beyond 2 MiB",
        Reason::SlowNode => "it stays unless a node with CPUs and memory becomes better",
        Reason::Reclaiming => {
            "it may move once that has been quiet for five seconds: free memory there"
        }
        Reason::OtherMover => {
            "it is left to them until they have been quiet for ten seconds: stop them, or exclude it"
        }
        Reason::Concurrency => "it moves once one of them has ended",
        Reason::Hurt => "it stays for as long as it lives, unless another node becomes better",
        Reason::HeldBack => "it is decided anew once the comparison has ended",
    }
}

fn capitalised(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    format!("{}{rest}", first.to_uppercase())
}

fn pages_off(domain: &DomainObs, extent: ExtentId, node: Node) -> Pages {
    let Some(extent) = domain.extents.iter().find(|obs| obs.id == extent) else { return 0 };
    let off =
        extent.pages.iter().filter(|(n, _)| *n != node).map(|(_, est)| f64::from(est.mid).max(0.0));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates, and no number becomes 0"
    )]
    let pages = off.sum::<f64>().round() as Pages;
    pages
}

#[cfg(test)]
mod tests {
    use super::{capitalised, explain};
    use crate::model::{Decision, Forecast, Node, Reason};
    use crate::policy::scene::{Proc, Scene};

    const MANY: f32 = 131_072.0;

    #[test]
    fn an_explanation_names_who_what_and_when() {
        let text = first_words(&Proc::new(7, 1, 1.0, &[MANY, 0.0]));
        assert_eq!(
            text,
            "redis-server (7): 100 % of its CPU time x placement crosses nodes, which loses 0.091 s \
             a second (up to 0.375) and has lost 0.09 s; moving 131072 pages to node 1 would cost \
             0.53 s (0.14 to 1.97). Staying has not lost enough yet (not_yet); it moves in 7 s if \
             things stay as they are."
        );
    }

    #[test]
    fn an_explanation_of_a_settled_process_promises_nothing() {
        let text = first_words(&Proc::new(7, 0, 1.0, &[MANY, 0.0]));
        assert!(text.contains("No node would be clearly better (settled)"), "{text}");
        assert!(!text.contains("mov"), "{text}");
    }

    #[test]
    fn without_a_placement_nothing_is_said_of_costs() {
        let text = first_words(&Proc { pages: vec![], ..Proc::new(7, 1, 1.0, &[MANY, 0.0]) });
        assert_eq!(
            text,
            "redis-server (7): where its memory is could not be sampled (no_placement); it is left \
             alone until that works."
        );
    }

    /// Also where a time is known after which it changes.
    #[test]
    fn every_reason_is_named_with_what_would_change_it() {
        let proc = Proc::new(7, 1, 1.0, &[MANY, 0.0]);
        let mut scene = Scene::new(2);
        let decision = scene.tick(std::slice::from_ref(&proc)).remove(0);
        for (reason, move_in) in
            Reason::ALL.into_iter().flat_map(|reason| [(reason, None), (reason, Some(40.0))])
        {
            let forecast = Forecast { move_in, best: Some(Node(1)), ..decision.forecast };
            let decision = Decision { reason, forecast, ..decision.clone() };
            let text = explain(&proc.observe(), &decision, &scene.nodes);
            let (why, change) = text.split_once(&format!(" ({}); ", reason.name())).unwrap();
            assert!(why.contains("would cost 0.53 s"), "{text}");
            let conditions = ["if ", "once ", "unless ", "until ", "in 40 s"];
            assert!(conditions.iter().any(|word| change.contains(word)), "{text}");
            assert_eq!(text.matches(". ").count(), 1, "two sentences: {text}");
        }
    }

    #[test]
    fn a_sentence_begins_with_a_capital() {
        assert_eq!([capitalised("its"), capitalised("")], ["Its", ""]);
    }

    fn first_words(proc: &Proc) -> String {
        let mut scene = Scene::new(2);
        let decisions = scene.tick(std::slice::from_ref(proc));
        explain(&proc.observe(), &decisions[0], &scene.nodes)
    }
}
