from hashlib import blake2b

import pyarrow as pa

from dataprep.core.chunks import MAX_ROWS, Chunk, find_chunks, id_digits


def chunks_of(*ids: str) -> list[tuple[int, int]]:
    return [
        (chunk.start, chunk.stop) for chunk in find_chunks(id_digits(pa.chunked_array([pa.array(ids, pa.string())])))
    ]


def named(*starts: str) -> list[str]:
    return [start + "1" * (32 - len(start)) for start in starts]


def test_a_chunk_ends_behind_an_id_that_begins_with_one_of_two_bytes():
    assert chunks_of(*named("12", "00", "34", "80", "08", "56")) == [(0, 2), (2, 4), (4, 6)]
    assert chunks_of(*named("00")) == [(0, 1)]
    assert find_chunks(id_digits(pa.chunked_array([], pa.string()))) == []


def test_a_chunk_has_a_greatest_length():
    assert chunks_of(*named("11") * (2 * MAX_ROWS + 5)) == [(0, 512), (512, 1024), (1024, 1029)]
    assert chunks_of(*named("11") * MAX_ROWS) == [(0, 512)]


def test_the_key_of_a_chunk_is_a_digest_of_its_ids_however_they_are_stored():
    ids = named("12", "00", "34")
    parts = pa.chunked_array([pa.array(["left out", ids[0]]).slice(1), pa.array(ids[1:])])
    assert find_chunks(id_digits(parts)) == [
        Chunk(start=0, stop=2, key=blake2b("".join(ids[:2]).encode(), digest_size=16).hexdigest()),
        Chunk(start=2, stop=3, key=blake2b(ids[2].encode(), digest_size=16).hexdigest()),
    ]
