"""Question sets are read from what people have, and what is wrong is said with its place."""

import json

import pytest

from uq_llm_integrations import ConfigurationError
from uq_llm_integrations.evaluation import Question, read_questions

PARIS = Question("Capital of France?", ("Paris", "City of Light"), "a", "geography", ("A book",))


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_jsonl_has_a_question_a_line(tmp_path):
    row = {"question": PARIS.question, "answers": list(PARIS.answers), "id": "a"}
    path = jsonl(tmp_path / "q.jsonl", row | {"group": "geography", "sources": ["A book"]})
    assert read_questions(path) == (PARIS,)


def test_csv_has_an_answer_or_a_json_list_of_them_in_a_cell(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text(
        "id,question,answers,group,sources\n"
        'a,Capital of France?,"[""Paris"", ""City of Light""]",geography,A book\n'
        "b,2 + 2?,4,,\n"
    )
    assert read_questions(path) == (PARIS, Question("2 + 2?", ("4",), "b"))


def test_columns_of_other_names_are_named(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text("Frage,Antwort\nHauptstadt?,Paris\n")
    columns = {"question": "Frage", "answers": "Antwort"}
    assert read_questions(path, columns=columns) == (Question("Hauptstadt?", ("Paris",), "1"),)
    with pytest.raises(ConfigurationError, match="there is no column 'Fragen'; did you mean 'Fra"):
        read_questions(path, columns={"question": "Fragen"})
    with pytest.raises(ConfigurationError, match="no field is 'qestion'; did you mean 'question'"):
        read_questions(path, columns={"qestion": "Frage"})


def test_parquet_has_a_question_a_row(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "q.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([PARIS.to_dict()]), path)
    assert read_questions(path) == (PARIS,)
    path.write_text("no parquet")
    with pytest.raises(ConfigurationError, match=r"q\.parquet cannot be read"):
        read_questions(path)


def test_a_data_set_of_hugging_face_is_read_from_its_folder(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([PARIS.to_dict()])
    rows.save_to_disk(tmp_path / "whole")
    datasets.DatasetDict({"test": rows}).save_to_disk(tmp_path / "split")
    assert read_questions(tmp_path / "whole") == (PARIS,)
    assert read_questions(tmp_path / "split", split="test") == (PARIS,)
    with pytest.raises(ConfigurationError, match="has the splits test; name one"):
        read_questions(tmp_path / "split")
    with pytest.raises(ConfigurationError, match="has no splits"):
        read_questions(tmp_path / "whole", split="test")
    with pytest.raises(ConfigurationError, match="is no data set"):
        read_questions(tmp_path)


def test_langsmiths_examples_are_read_as_it_exports_them(tmp_path):
    row = {"id": "a", "inputs": {"query": PARIS.question}, "outputs": {"result": "Paris"}}
    row["metadata"] = {"group": "geography"}
    expected = (Question(PARIS.question, ("Paris",), "a", "geography"),)
    assert read_questions(jsonl(tmp_path / "q.jsonl", row)) == expected
    (tmp_path / "q.json").write_text(json.dumps([row]))
    assert read_questions(tmp_path / "q.json") == expected


def test_llama_indexs_evaluation_set_is_read_as_it_saves_it(tmp_path):
    by = {"model_name": "", "type": "human"}
    row = {"query": PARIS.question, "query_by": by, "reference_contexts": ["A book"]}
    row |= {"reference_answer": "Paris", "reference_answer_by": by}
    path = tmp_path / "rag.json"
    path.write_text(json.dumps({"examples": [row]}))
    assert read_questions(path) == (Question(PARIS.question, ("Paris",), "1", None, ("A book",)),)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.jsonl", '{"question": "a"}\n{"question"\n', r"q\.jsonl, line 2: this is no JSON"),
        ("q.jsonl", '{"question": "a"}\n\n[1]\n', r"line 3: it is \[1\]; wanted is a mapping"),
        ("q.jsonl", '{"text": "a"}\n', "line 1: it has no question: .* there are 'text'"),
        ("q.jsonl", '{"question": 1}\n', "line 1: the question is 1; wanted is a text"),
        ("q.jsonl", '{"question": "a", "answers": true}\n', "line 1: answers is True"),
        ("q.jsonl", '{"question": "\\ud800"}\n', "line 1: the question"),
        ("q.jsonl", '{"question": "a", "id": 1}\n{"question": "b", "id": "1"}\n', "two questions"),
        ("q.jsonl", "\n", "there are no questions"),
        ("q.json", "{}", "holds neither a list"),
        ("q.json", '[\n{"question": "a",}\n]', r"this is no JSON: .*\(line 2"),
        ("q.csv", "question,answers\na,b,c\n", "line 2: it has more cells"),
        ("q.csv", 'question\n"a\n', "unexpected end of data"),
        ("q.txt", "a", "is of no kind that can be read; allowed are .jsonl"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_questions(path)


def test_what_is_no_file_or_not_in_utf_8_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no file"):
        read_questions(tmp_path / "nowhere.csv")
    (tmp_path / "q.csv").write_bytes(b"question\n\xff\n")
    with pytest.raises(ConfigurationError, match="not written in UTF-8"):
        read_questions(tmp_path / "q.csv")
    with pytest.raises(ConfigurationError, match="is no folder with splits"):
        read_questions(tmp_path / "q.csv", split="test")
