"""What holds the house together: no circle of imports of any kind, and no name twice."""

import grimp

GRAPH = grimp.build_graph("uq_llm_integrations", exclude_type_checking_imports=False)


def test_no_module_imports_itself_by_way_of_others():
    """Imports within functions and for typing count as well."""
    circles = [
        (one, other)
        for one in GRAPH.modules
        for other in GRAPH.find_modules_directly_imported_by(one)
        if GRAPH.chain_exists(other, one)
    ]
    assert circles == []


def test_no_file_is_named_like_another_but_in_parallel_rooms():
    names: dict[str, list[str]] = {}
    for module in GRAPH.modules - {one.rpartition(".")[0] for one in GRAPH.modules}:
        room, _, name = module.rpartition(".")
        names.setdefault(name, []).append(room.rpartition(".")[2])
    twice = {name: sorted(rooms) for name, rooms in names.items() if len(rooms) > 1}
    assert twice.pop("base") == ["backends", "methods", "strategies"]
    parallel = [{"huggingface", "server", "vllm"}, {"langchain", "llama_index"}]
    apart = [name for name, rooms in twice.items() if not any({*rooms} <= one for one in parallel)]
    assert apart == []
