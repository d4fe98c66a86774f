use rstest::rstest;

use crate::images::scalars::*;

/// Text as written, value, line.
type Found = (String, String, u32);

fn found(text: &str) -> Vec<Found> {
    let scalars = image_scalars(text.as_bytes()).unwrap();
    scalars.into_iter().map(|scalar| (text[scalar.span].to_owned(), scalar.value, scalar.line)).collect()
}

#[rstest]
#[case::plain("image: repo:v1\n", &[("repo:v1", "repo:v1", 1)])]
#[case::at_the_end_of_the_file("image: a", &[("a", "a", 1)])]
#[case::a_comment_is_no_part("image: repo:v1 \t # c\n", &[("repo:v1", "repo:v1", 1)])]
#[case::a_hash_within_is("image: repo#v1\n", &[("repo#v1", "repo#v1", 1)])]
#[case::single_quotes("image: 'a''b' # c\n", &[("'a''b'", "a'b", 1)])]
#[case::double_quotes("image: \"a\\u0041\" # c\n", &[("\"a\\u0041\"", "aA", 1)])]
#[case::quotes_over_lines("image: \"a\n  b\" # c\nb: c\n", &[("\"a\n  b\"", "a b", 1)])]
#[case::plain_over_lines("a: 1\nimage: a\n  b \n  c # d\nb: c\n", &[("a\n  b \n  c", "a b c", 2)])]
#[case::plain_on_the_next_line("image:\n  repo:v1 # c\n", &[("repo:v1", "repo:v1", 2)])]
#[case::after_a_comment("image: # c | d\n  # e > f\n  repo:v1\n", &[("repo:v1", "repo:v1", 3)])]
#[case::literal("a: 1\nimage: |-\n  a:v1\nb: c\n", &[("|-\n  a:v1", "a:v1", 2)])]
#[case::literal_with_comments(
    "a:\n  image: |- # c | d\n      a:v1\n\n\n  # e\n  b: c\n",
    &[("|- # c | d\n      a:v1", "a:v1", 2)]
)]
#[case::literal_with_an_indentation("image: |2-\n    x \n\t\nb: c\n", &[("|2-\n    x ", "  x ", 1)])]
#[case::literal_in_a_list("- image: |\n    x\n- image: y\n", &[("|\n    x", "x\n", 1), ("y", "y", 3)])]
#[case::literal_at_the_end_of_the_file("image: |\n  a", &[("|\n  a", "a\n", 1)])]
#[case::folded("image: >\n\n  a\n  b\n\n\nb: c\n", &[(">\n\n  a\n  b", "\na b\n", 1)])]
#[case::a_block_that_keeps_its_end("image: |+\n  a\n\n\nb: c\n", &[("|+\n  a", "a\n\n\n", 1)])]
#[case::a_block_without_text("image: |- # c\n\n\nb: c\n", &[("|-", "", 1)])]
#[case::a_block_with_nothing("image: >+\nb: c\n", &[(">+", "", 1)])]
#[case::a_block_on_the_next_line("image:\n  # c\n  !!str\n  |-\n  a\n", &[("|-\n  a", "a", 4)])]
#[case::a_block_after_an_odd_anchor("image: &a|b>c !x |-\n  a\n", &[("|-\n  a", "a", 1)])]
#[case::a_block_after_an_odd_key("? |-\n  image\n: >-\n  a\n", &[(">-\n  a", "a", 3)])]
#[case::an_anchor_is_no_part("image: &i repo:v1 # c\n", &[("repo:v1", "repo:v1", 1)])]
#[case::a_tag_is_no_part("image: !!str &i 'a'\nb: 1\n", &[("'a'", "a", 1)])]
#[case::anchor_and_tag_on_lines_of_their_own("image:\n  &i\n  !!str\n  a\n", &[("a", "a", 4)])]
#[case::a_quoted_key("\"image\": a\n'image': b\n", &[("a", "a", 1), ("b", "b", 2)])]
#[case::an_escaped_key("\"im\\u0061ge\": a\n", &[("a", "a", 1)])]
#[case::a_complex_key("? image\n: a\n", &[("a", "a", 2)])]
#[case::an_alias_as_key("x: &k image\nb: {*k : a}\n*k : c\n", &[("a", "a", 2), ("c", "c", 3)])]
#[case::json("{\"image\":\"a\",\"b\":{\"image\":\"c\"}}", &[("\"a\"", "a", 1), ("\"c\"", "c", 1)])]
#[case::flow("{image: a, b: [image: c, {image : 'd'}]\n , e: f}", &[("a", "a", 1), ("c", "c", 1), ("'d'", "d", 1)])]
#[case::within_a_key("? {image: x}\n: {image: y}\n", &[("x", "x", 1), ("y", "y", 2)])]
#[case::documents("%YAML 1.2\n---\nimage: a\n...\n---\nimage: b\n", &[("a", "a", 3), ("b", "b", 6)])]
#[case::a_byte_order_mark("\u{feff}image: a\n", &[("a", "a", 1)])]
#[case::carriage_returns(
    "é: ü\r\nimage: b c\r\n  d\r\nz: {image: ñ}\r\ny:\r\n  image: |-\r\n    x\r\n\r\nq: 1\r\n",
    &[("b c\r\n  d", "b c d", 2), ("ñ", "ñ", 4), ("|-\r\n    x", "x", 6)]
)]
#[case::wide_text_before("# 🦀é\n名: \"🦀\"\nimage: ñ:ü # ü\n", &[("ñ:ü", "ñ:ü", 3)])]
#[case::an_extension_that_is_merged("x-a: &a\n  image: a\ns:\n  b:\n    <<: *a\n", &[("a", "a", 2)])]
#[case::an_alias_means_the_anchor("x: &i a\nb: {image: *i}\nc: {image: *i}\n", &[("a", "a", 1)])]
#[case::of_two_definitions_the_latest_before(
    "x: &i a\ny: &i b\nc: {image: *i}\nd: &i e\n",
    &[("b", "b", 2)]
)]
#[case::both_where_both_are_used(
    "x: &i a\nb: {image: *i}\nc: &i d\ne: {image: *i}\n",
    &[("a", "a", 1), ("d", "d", 3)]
)]
#[case::an_anchored_image_and_its_alias("b: {image: &i a}\nc: {image: *i}\n", &[("a", "a", 1)])]
#[case::an_anchor_in_each_document("x: &i a\n---\ny: &i b\nimage: *i\n", &[("b", "b", 3)])]
#[case::an_alias_of_a_block("x: &i |-\n  a\nb: {image: *i}\n", &[("|-\n  a", "a", 1)])]
#[case::an_empty_text_is_one("image: ''\n", &[("''", "", 1)])]
#[case::a_quoted_null_is_one("image: 'null'\nb: {image: !!str null}\n", &[("'null'", "null", 1), ("null", "null", 2)])]
#[case::null_is_none("image:\nb: {image: , image: ~}\nc: {image}\nd:\n  image: null # c\n", &[])]
#[case::null_with_properties_is_none("image: &a\nb: {image: *a}\nc:\n  image: !!str\nd:\n  image: !!null x\n", &[])]
#[case::a_reset_is_none("image: !reset null\n", &[])]
#[case::a_mapping_is_none("a: &a {}\nimage: {name: a}\nb: {image: [image]}\nc: {image: *a}\n", &[])]
#[case::other_keys_are_none("images: a\nIMAGE: b\n", &[])]
#[case::a_value_image_is_none("a: image\nb: c\nd: [image, e]\n", &[])]
#[case::within_text_is_none("a: 'image: b'\nc: |\n  image: d\n# image: e\n", &[])]
#[case::an_empty_file("", &[])]
fn an_image_is_found_where_it_stands(#[case] text: &str, #[case] wanted: &[(&str, &str, u32)]) {
    let wanted: Vec<Found> =
        wanted.iter().map(|(span, value, line)| ((*span).to_owned(), (*value).to_owned(), *line)).collect();
    assert_eq!(found(text), wanted);
}

#[test]
fn each_style_is_told() {
    let text = "- image: a\n- image: 'a'\n- image: \"a\"\n- image: |\n    a\n- image: >\n    a\n";
    let styles: Vec<Style> =
        image_scalars(text.as_bytes()).unwrap().iter().map(|found| found.style).collect();
    assert_eq!(
        styles,
        [Style::Plain, Style::SingleQuoted, Style::DoubleQuoted, Style::Literal, Style::Folded]
    );
}

#[rstest]
#[case::never_closed("a: 1\nimage: [secret", "line 2 can't be read as YAML")]
#[case::an_open_quote("a: 1\nimage: 'secret\n", "line 3 can't be read as YAML")]
#[case::a_tab("image: secret\nb:\n\tc: {}\n", "line 3 can't be read as YAML")]
#[case::an_alias_of_nothing("image: *secret\n", "line 1 can't be read as YAML")]
#[case::an_alias_of_another_document("a: &secret b\n---\nimage: *secret\n", "line 3 can't be read as YAML")]
fn a_malformed_file_is_refused_with_its_line_and_without_its_text(#[case] text: &str, #[case] words: &str) {
    let error = image_scalars(text.as_bytes()).unwrap_err();
    assert!(error.to_string().starts_with(words), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[test]
fn what_is_no_text_is_refused_with_its_line() {
    assert_eq!(image_scalars(b"a: 1\nimage: \xff\n"), Err(Unreadable::NotText { line: 2 }));
    let wide: Vec<u8> = "image: a\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(image_scalars(&[&[0xFF, 0xFE], wide.as_slice()].concat()).is_err());
}

#[test]
fn sixty_four_levels_are_read_and_no_more() {
    let nested = |open: &str, close: &str, levels: usize| open.repeat(levels) + "a" + &close.repeat(levels);
    let block = |levels: usize| {
        (0..levels).map(|level| " ".repeat(level) + "image:\n").collect::<String>()
            + &" ".repeat(levels)
            + "a"
    };
    let mixed = |levels: usize| "- ".repeat(32) + &nested("{image: ", "}", levels - 32);
    for make in [&|n| nested("[", "]", n), &|n| nested("{image: ", "}", n), &block, &mixed]
        as [&dyn Fn(usize) -> String; 4]
    {
        assert!(image_scalars(make(64).as_bytes()).is_ok(), "{}", make(64));
        for deep in [65, 400] {
            let error = image_scalars(make(deep).as_bytes()).unwrap_err();
            assert!(matches!(error, Unreadable::TooDeep { .. }), "{error}");
        }
    }
}

#[test]
fn one_mebibyte_is_read_and_no_more() {
    let text =
        |size: usize| b"image: a\n#".iter().copied().chain([b'c'].repeat(size - 10)).collect::<Vec<u8>>();
    assert_eq!(image_scalars(&text(FILE_LIMIT)).unwrap().len(), 1);
    let size = FILE_LIMIT + 1;
    assert_eq!(image_scalars(&text(size)), Err(Unreadable::TooLarge { size }));
}

/// Whatever is repeated up to the limit: it is read or refused, and ends. None of these takes long by itself; the
/// bound is for a busy machine.
#[test]
fn p15_hostile_files_cost_no_more_than_their_size() {
    let begun = std::time::Instant::now();
    let nine = |n: i32| format!("a{n}: &a{n} [{}]\n", [format!("*a{}", n - 1).as_str(); 9].join(","));
    let lists = (1..40).map(nine).collect::<Vec<_>>().concat();
    let bomb = format!("a0: &a0 [x,x,x,x,x,x,x,x,x]\n{lists}image: *a39\n");
    assert_eq!(found(&bomb), []);
    let long = format!("x: &a {}\nb: [{}]\n", "x".repeat(400_000), "{image: *a},".repeat(50_000));
    assert_eq!(found(&long).len(), 1);
    let repeated = [
        "[",
        "{",
        "[[],",
        "- ",
        "? ",
        "a: ",
        "{a: ",
        "\"",
        "'",
        "&a ",
        "*a ",
        "!a ",
        "!",
        "|\n",
        "a",
        "a\n",
        "\n",
        "\t",
        "---\n",
        "# a\n",
        "image: |\n",
        "image: &i a\n",
        "- image: &i a\n",
        "- &i image\n",
        "- image: |\n    a\n\n",
        "a:\n  ",
        "%a\n",
        "\r",
        "é",
        "a,",
        ":",
        "? a\n: b\n",
        "- - a\n",
    ];
    for part in repeated {
        for start in ["", "image: ", "[", "x: &i a\nb:\n"] {
            let text = start.to_owned() + &part.repeat((256 * 1024) / part.len());
            let _ = image_scalars(text.as_bytes());
        }
    }
    assert!(begun.elapsed() < std::time::Duration::from_mins(2), "{:?}", begun.elapsed());
}
