//! Models in parts, and every way in which parts can contradict each other.

use super::*;

const NAMES: [&str; 3] = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"];

fn numbered(file: Writer, no: u16, count: u16, tensors: i32) -> Writer {
    file.pair("split.no", 2, &no.to_le_bytes()).pair("split.count", 2, &count.to_le_bytes()).pair(
        "split.tensors.count",
        5,
        &tensors.to_le_bytes(),
    )
}

/// The model of [`phi3`] in three parts: its metadata in the first, three tensors in each.
fn parts() -> [Writer; 3] {
    let mut whole = phi3();
    let tensors = std::mem::take(&mut whole.tensors);
    let all = tensors.len() as i32;
    [0, 1, 2].map(|no: u16| {
        let own = if no == 0 { whole.clone() } else { Writer::default() };
        let mut part = numbered(own, no, 3, all);
        part.tensors = tensors[3 * usize::from(no)..][..3].to_vec();
        part
    })
}

fn joined(parts: &[Writer]) -> Result<Header> {
    join(
        NAMES
            .iter()
            .zip(parts)
            .map(|(name, part)| ((*name).to_owned(), part.read().expect("sound")))
            .collect(),
    )
}

fn write(folder: &Path, name: &str, part: &Writer) {
    std::fs::write(folder.join(name), part.file()).expect("written");
}

#[test]
fn parts_make_the_header_of_the_whole_model() {
    let header = joined(&parts()).expect("sound");
    let whole = phi3().read().expect("sound");
    assert_eq!(header.tensors.len(), whole.tensors.len());
    for tensor in &whole.tensors {
        let found = header.tensor(&tensor.name).expect("there");
        assert_eq!((&found.shape, found.kind, found.n_bytes), (&tensor.shape, tensor.kind, tensor.n_bytes));
    }
    assert_eq!(
        header.tensors.iter().map(|tensor| tensor.part).collect::<Vec<_>>(),
        [0, 0, 0, 1, 1, 1, 2, 2, 2]
    );
    let plan = ModelPlan::from_header(&header).expect("a model");
    assert_eq!(plan, phi3().plan().expect("a model"));
}

#[test]
fn one_part_alone_is_no_model() {
    let text = message(parts()[1].plan());
    assert!(text.contains("`split.no` is 1") && text.contains("part 2 of 3"), "{text}");
    // A model in one part is whole.
    assert!(numbered(phi3(), 0, 1, 9).plan().is_ok());
}

#[test]
fn contradictions_between_parts_name_both() {
    type Damage = fn(Writer) -> Writer;
    let (first, other) = (NAMES[0], NAMES[1]);
    let cases: &[(&str, Damage, &[&str])] = &[
        ("the same part twice", |_| parts()[2].clone(), &[other, first, "part 2 of 3", "part 3 of 3"]),
        (
            "a part of a model in four",
            (|b| {
                numbered(b.without("split.no").without("split.count").without("split.tensors.count"), 1, 4, 9)
            }),
            &[other, first, "part 2 of 3", "part 2 of 4"],
        ),
        (
            "a whole model in between",
            (|b| b.without("split.no").without("split.count")),
            &[other, first, "no `split.count`"],
        ),
        (
            "another number of tensors",
            (|b| {
                numbered(
                    b.without("split.no").without("split.count").without("split.tensors.count"),
                    1,
                    3,
                    12,
                )
            }),
            &[other, first, "split.tensors.count", "12", "9"],
        ),
        (
            "another architecture",
            (|b| b.str("general.architecture", "llama")),
            &[other, first, "general.architecture", "\"llama\"", "\"phi3\""],
        ),
        (
            "a key that the first part lacks",
            (|b| b.u32("phi3.attention.sliding_window", 7)),
            &[other, first, "phi3.attention.sliding_window", "7", "absent"],
        ),
        (
            "another alignment",
            (|b| b.u32("general.alignment", 64)),
            &[other, first, "general.alignment", "64", "32"],
        ),
        (
            "a tensor in two parts",
            (|b| b.tensor("token_embd.weight", &[32, 40], GgmlType::Q8_0)),
            &["token_embd.weight", other, first],
        ),
        (
            "a part with fewer tensors",
            (|mut b| {
                b.tensors.pop();
                b
            }),
            &["split.tensors.count", "9", "8 tensors"],
        ),
    ];
    for (what, damage, sides) in cases {
        let [a, b, c] = parts();
        let error = joined(&[a, damage(b), c]).expect_err(what);
        for side in *sides {
            assert!(error.message().contains(side), "{what}: `{side}` is not in: {error}");
        }
    }
}

#[test]
fn another_version_of_the_format_names_both_parts() {
    let sound = parts().map(|part| part.file());
    let mut headers = Vec::new();
    for (name, mut bytes) in NAMES.into_iter().zip(sound) {
        if name == NAMES[2] {
            bytes[4] = 2;
        }
        headers.push((name.to_owned(), Header::parse(&bytes, bytes.len() as u64).expect("sound")));
    }
    let text = message(join(headers));
    for side in [NAMES[0], NAMES[2], "version is 2", "3 in the other"] {
        assert!(text.contains(side), "{text}");
    }
}

#[test]
fn numbers_of_one_part_that_cannot_be_name_both_keys() {
    for (no, count, sides) in [
        (3, 3, &["`split.no` is 3", "`split.count` is 3"][..]),
        (0, 0, &["`split.count` is 0", "from 1 to 1000"]),
        (0, 5000, &["`split.count` is 5000", "from 1 to 1000"]),
    ] {
        let text = message(part_of(&numbered(phi3(), no, count, 9).read().expect("sound")));
        assert!(sides.iter().all(|side| text.contains(side)), "{text}");
    }
    let text = message(part_of(&phi3().u32("split.count", 2).read().expect("sound")));
    assert!(text.contains("`split.count` is 2") && text.contains("`split.no`"), "{text}");
}

#[test]
fn names_and_headers_that_disagree_name_both() {
    let folder = tempfile::tempdir().expect("folder");
    let parts = parts();
    write(folder.path(), "renamed.gguf", &parts[1]);
    let text = message(GgufFile::open(&folder.path().join("renamed.gguf")));
    assert!(text.contains("renamed.gguf") && text.contains("-00002-of-00003.gguf"), "{text}");
    write(folder.path(), NAMES[2], &parts[1]);
    let text = message(GgufFile::open(&folder.path().join(NAMES[2])));
    assert!(text.contains("part 3 of 3") && text.contains("part 2 of 3"), "{text}");
    // A whole model may have any name.
    write(folder.path(), NAMES[0], &phi3());
    assert!(GgufFile::open(&folder.path().join(NAMES[0])).is_ok());
}

#[test]
fn a_damaged_part_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    for (name, part) in NAMES.iter().zip(parts()) {
        write(folder.path(), name, &part);
    }
    assert!(GgufFile::open(&folder.path().join(NAMES[0])).is_ok());
    let path = folder.path().join(NAMES[1]);
    let bytes = std::fs::read(&path).expect("read");
    std::fs::write(&path, &bytes[..bytes.len() - 40]).expect("written");
    let text = message(GgufFile::open(&folder.path().join(NAMES[0])));
    assert!(text.contains(NAMES[1]) && text.contains("missing"), "{text}");
}

#[test]
fn the_first_bytes_of_a_file_give_its_header_or_how_many_more_it_needs() {
    let file = phi3().file();
    let all = file.len() as u64;
    let header = phi3().read().expect("sound");
    let mut have = 24;
    let mut steps = 0;
    loop {
        match Header::parse_prefix(&file[..have], all).expect("no fault") {
            Prefix::Whole(found) => {
                assert_eq!(found, header);
                break;
            }
            Prefix::Needs(least) => {
                assert!(
                    least as usize > have && least <= header.parts[0].data_offset,
                    "{least} after {have}"
                );
                have = least as usize;
            }
        }
        steps += 1;
    }
    assert!(steps > 50 && have as u64 <= header.parts[0].data_offset);
    // A fault shows as soon as its bytes are there, and a header that ends with its file is no question of more bytes.
    assert!(Header::parse_prefix(b"GGUF\x01\0\0\0", all).is_err());
    assert!(Header::parse_prefix(&file[..200], 200).is_err());
}
