use super::{Hook, all, globals};
use crate::btf::tests::Builder;
use crate::btf::{Btf, Returns};

#[test]
fn the_number_of_arguments_tells_where_the_reason_stands() {
    for (arguments, program) in
        [(7, Some("mm_migrate_pages_7")), (8, Some("mm_migrate_pages_8")), (9, None)]
    {
        check(("migrations", "mm_migrate_pages"), program, |btf| {
            btf.tracepoint("mm_migrate_pages", arguments)
        });
    }
}

#[test]
fn a_fault_handler_with_another_number_of_arguments_is_left_alone() {
    for (arguments, program) in [(4, Some("handle_mm_fault_enter")), (5, None)] {
        check(("fault_time", "fentry handle_mm_fault"), program, |btf| {
            btf.function("handle_mm_fault", Returns::Integer, arguments);
        });
    }
}

#[test]
fn a_beginning_knows_its_end() {
    let hooks = all(&Btf::parse(Builder::default().finish()).unwrap());
    let pairs: Vec<(String, String)> = hooks
        .iter()
        .filter_map(|hook| Some((hook.name(), hooks[hook.ended_by(&hooks)?].name())))
        .collect();
    let expected = [
        ("tp_btf mm_compaction_begin", "tp_btf mm_compaction_end"),
        ("fentry handle_mm_fault", "fexit handle_mm_fault"),
        ("tp_btf mm_migrate_pages_start", "tp_btf mm_migrate_pages"),
        ("fentry migrate_to_node", "fexit migrate_to_node"),
        ("fentry kernel_move_pages", "fexit kernel_move_pages"),
        ("fentry kernel_mbind", "fexit kernel_mbind"),
        ("fentry lru_cache_disable", "fexit lru_cache_disable"),
        ("fentry lru_add_drain_all", "fexit lru_add_drain_all"),
        ("fentry migration_entry_wait", "fexit migration_entry_wait"),
        ("fentry pmd_migration_entry_wait", "fexit pmd_migration_entry_wait"),
        ("tp_btf contention_begin", "tp_btf contention_end"),
        ("fentry isolate_migratepages_block", "fexit isolate_migratepages_block"),
    ];
    assert_eq!(pairs, expected.map(|(one, other)| (one.to_owned(), other.to_owned())));
}

#[test]
fn an_exit_without_group_dead_needs_the_count_of_live_threads() {
    check(("life", "sched_process_exit"), Some("sched_process_exit_2"), |btf| {
        btf.tracepoint("sched_process_exit", 2);
    });
    check(("life", "sched_process_exit"), None, |btf| btf.tracepoint("sched_process_exit", 1));
    check(("life", "sched_process_exit"), Some("sched_process_exit_1"), |btf| {
        btf.tracepoint("sched_process_exit", 1);
        btf.structure("task_struct", &[("signal", 0, 8)]);
        btf.structure("signal_struct", &[("live", 0, 4)]);
    });
}

#[test]
fn hint_faults_need_to_know_where_the_node_is() {
    check(("hint_faults", "mpol_misplaced"), None, |btf| {
        btf.function("mpol_misplaced", Returns::Integer, 3)
    });
    check(("hint_faults", "mpol_misplaced"), Some("mpol_misplaced"), |btf| {
        btf.function("mpol_misplaced", Returns::Integer, 3);
        zone_lists(btf, 1024 * 5 + 1);
    });
}

#[test]
fn the_node_sits_in_as_many_bits_as_there_may_be_nodes() {
    for (places, shift) in [(1024 * 5 + 1, 54), (16 * 5 + 1, 60), (5 + 1, 0), (0, 0), (18, 0)] {
        let mut blob = Builder::default();
        zone_lists(&mut blob, places);
        let btf = Btf::parse(blob.finish()).expect("a valid blob");
        assert!(globals(&btf).contains(&("NODE_SHIFT", shift)), "{places} places");
    }
}

#[test]
fn a_kernel_without_anything_costs_each_signal_but_the_clock() {
    let btf = Btf::parse(Builder::default().finish()).expect("a valid blob");
    let chosen: Vec<_> = all(&btf).iter().filter_map(|hook| hook.program.clone().ok()).collect();
    assert_eq!(chosen, ["cpu_clock"]);
}

/// The hook of that signal and function gets this program, or none.
fn check(
    (signal, function): (&str, &str),
    program: Option<&str>,
    build: impl FnOnce(&mut Builder),
) {
    let mut blob = Builder::default();
    build(&mut blob);
    let btf = Btf::parse(blob.finish()).expect("a valid blob");
    let wanted = |hook: &Hook| hook.signal == signal && hook.name().ends_with(function);
    let hooks: Vec<Hook> = all(&btf).into_iter().filter(wanted).collect();
    assert_eq!(hooks.len(), 1);
    assert_eq!(hooks[0].program.as_ref().ok().copied(), program, "{:?}", hooks[0]);
}

fn zone_lists(btf: &mut Builder, places: u32) {
    let int = btf.int(false);
    let list = btf.array(int, places);
    btf.structure("zonelist", &[("_zonerefs", list, 0)]);
    btf.enumeration("zone_type", &[("ZONE_DMA", 0), ("__MAX_NR_ZONES", 5)]);
}
