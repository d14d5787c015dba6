use super::*;

#[test]
fn reads_two_nodes() {
    let two = fixture("two-node");
    assert_eq!(two.len(), 2);
    assert_eq!(
        two.cpus().collect::<Vec<_>>(),
        [(0, Node(0)), (1, Node(0)), (2, Node(1)), (3, Node(1))]
    );
    assert!(two.matters());
    let seen = observe("two-node");
    assert_eq!(seen[Node(0)].free, 400_000 / 4);
    assert_eq!(seen[Node(1)].inactive_file, 10_000 / 4);
    assert_eq!(seen[Node(0)].high_watermark, 50 + 600);
    assert_eq!(seen[Node(1)].high_watermark, 700);
    assert_eq!(seen[Node(0)].latency[Node(0)].mid, 1.0);
    assert_eq!(seen[Node(0)].latency[Node(1)].mid, 2.1);
}

#[test]
fn tells_the_node_of_a_frame_and_nothing_in_the_hole_between() {
    let two = fixture("two-node");
    // Blocks of 128 MiB: 0 and 1 on node 0, 8 and 9 on node 1, and 2 on both.
    let block = 0x800_0000 / 4096;
    assert_eq!(two.node_of_frame(0), Some(Node(0)));
    assert_eq!(two.node_of_frame(2 * block - 1), Some(Node(0)));
    assert_eq!(two.node_of_frame(2 * block), None);
    assert_eq!(two.node_of_frame(3 * block), None);
    assert_eq!(two.node_of_frame(8 * block), Some(Node(1)));
    assert_eq!(two.node_of_frame(10 * block), None);
    assert_eq!(two.frames.ranges(), 2);
}

#[test]
fn keeps_sparse_numbers_apart_from_positions() {
    let sparse = fixture("sparse");
    assert_eq!(sparse.len(), 2);
    assert_eq!(sparse.id(Node(1)), NodeId(8));
    assert_eq!(sparse.node(NodeId(8)), Some(Node(1)));
    assert_eq!(sparse.node(NodeId(1)), None);
    assert_eq!(sparse.node_of_cpu(2), Some(Node(1)));
    assert_eq!(observe("sparse")[Node(1)].high_watermark, 700);
    // Without hotplug blocks nobody knows the frames.
    assert_eq!(sparse.node_of_frame(0), None);
}

#[test]
fn takes_a_node_without_memory_for_what_it_is() {
    let nodes = fixture("memory-less");
    assert!(nodes.nodes[1].has_cpus && !nodes.has_memory(Node(1)));
    assert!(!nodes.matters());
    assert_eq!(observe("memory-less")[Node(1)].free, 0);
    assert_eq!(observe("memory-less")[Node(1)].high_watermark, 0);
}

#[test]
fn takes_a_node_without_cpus_for_what_it_is() {
    let nodes = fixture("cpu-less");
    assert!(!nodes.nodes[1].has_cpus && nodes.has_memory(Node(1)));
    assert!(nodes.cpus().all(|(_, node)| node == Node(0)));
    // Pages on the slow node are far from every CPU.
    assert!(nodes.matters());
}

#[test]
fn puts_everything_on_the_only_node() {
    for name in ["single", "no-numa"] {
        let one = fixture(name);
        assert_eq!((one.len(), one.id(Node(0)), one.matters()), (1, NodeId(0), false), "{name}");
        assert_eq!(one.cpus().count(), 2, "{name}");
        assert_eq!(one.node_of_frame(123_456), Some(Node(0)), "{name}");
        assert_eq!(observe(name)[Node(0)].free, 100_000, "{name}");
    }
}

#[test]
fn names_the_file_and_the_value_that_it_cannot_read() {
    let error = Topology::read(&root("bad-distance")).unwrap_err().to_string();
    assert!(error.contains("node1/distance") && error.contains("\"21\""), "{error}");
    let error = Topology::read(&root("nothing-here")).unwrap_err().to_string();
    assert!(error.contains("cpu/online"), "{error}");
}

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn fixture(name: &str) -> Topology {
    Topology::read(&root(name)).unwrap()
}

fn observe(name: &str) -> NodeVec<NodeObs> {
    fixture(name).observe(&root(name)).unwrap()
}
