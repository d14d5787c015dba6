//! A decision in plain words.

use crate::model::{Decision, DomainObs, Node, NodeObs, NodeVec, Reason, Verdict};
use crate::procfs::printable;

/// Who, what staying costs, what moving would cost, which guard spoke, what would change it.
pub fn explain(domain: &DomainObs, decision: &Decision, nodes: &NodeVec<NodeObs>) -> String {
    let forecast = &decision.forecast;
    let who = format!("{} (pid {})", printable(&domain.comm), domain.id.pid);
    let name = |node: Node| nodes.get(node).map_or(node.0, |node| node.id.0);
    let Some(best) = forecast.best else {
        return if decision.reason == Reason::NoPlacement {
            format!("{who}: where its memory lies could not be sampled")
        } else {
            format!("{who}: no node is better than where its memory lies; it stays")
        };
    };
    let costs = format!(
        "{who}: {:.0} % of its CPU time × placement is remote; staying loses {:.3} s a second and \
         has cost {:.2} s, moving to node {} would cost {:.2} s",
        forecast.remote_share * 100.0,
        forecast.loss_rate,
        forecast.lost,
        name(best),
        forecast.price,
    );
    match &decision.verdict {
        Verdict::Move(order) => {
            format!("{costs}; so {} pages move to node {}", order.pages, name(order.to))
        }
        Verdict::Stay => format!("{costs}; it stays: {}", why(decision.reason, forecast.move_in)),
    }
}

fn why(reason: Reason, move_in: Option<f32>) -> String {
    let why = match reason {
        Reason::NotYet => {
            return match move_in {
                Some(seconds) => {
                    format!("it will pay in {seconds:.1} s if things stay as they are")
                }
                None => "it will not pay if things stay as they are".to_owned(),
            };
        }
        Reason::Pays | Reason::Settled => "no node is better",
        Reason::NoPlacement => "where its memory lies could not be sampled",
        Reason::Mempolicy => "its owner set a memory policy; remove that to let it follow",
        Reason::MempolicyUnknown => "its memory policy could not be read",
        Reason::Cpuset => "its cpuset forbids that node; widen cpuset.mems to let it follow",
        Reason::NoRoom => "that node has no room above its high watermark; free memory there",
        Reason::RateLimit => "the byte budget is spent; it goes on as the budget refills",
        Reason::TooLarge => "it is larger than one direct move may hold up; move it by hand",
        Reason::CoolDown => "its last move failed or did not help; it is tried again later",
        Reason::Excluded => "the user excluded it",
        Reason::Moving => "a move of it is under way",
    };
    why.to_owned()
}
