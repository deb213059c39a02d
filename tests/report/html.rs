//! A small check that a page is well-formed enough: tags balance, attributes are quoted, nothing is loaded.

const VOID: [&str; 2] = ["meta", "!doctype"];

/// Panics with the place if tags do not balance, a text holds a bare `<` or `&`, or something would be loaded.
pub fn check(page: &str) {
    for scheme in ["http://", "https://", "//cdn", "@import", "url(", "<link", "<img", "<iframe", "src="] {
        assert!(!page.contains(scheme), "the page holds {scheme}");
    }
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        check_text(&rest[..start], &open);
        let raw = open.last().is_some_and(|tag| ["script", "style"].contains(tag));
        if raw && !rest[start..].starts_with("</script") && !rest[start..].starts_with("</style") {
            rest = &rest[start + 1..];
            continue;
        }
        let end = start + tag_end(&rest[start..]);
        let tag = rest[start + 1..end].trim();
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        assert!(!name.is_empty(), "an empty tag: {}", &rest[start..end + 1]);
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed.trim()), "near {}", &rest[start.saturating_sub(60)..end + 1]);
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "left open: {open:?}");
    let ids: Vec<&str> = page.split(" id=\"").skip(1).map(|part| part.split('"').next().unwrap()).collect();
    let unique: std::collections::BTreeSet<&&str> = ids.iter().collect();
    assert_eq!(ids.len(), unique.len(), "an id is used twice");
    for number in ["NaN", "inf,", "inf\"", "undefined"] {
        assert!(!page.split("<script>").next().unwrap().contains(number), "the page shows {number}");
    }
}

fn check_text(text: &str, open: &[&str]) {
    if open.last().is_some_and(|tag| ["script", "style"].contains(tag)) {
        return;
    }
    for (at, _) in text.match_indices('&') {
        let entity =
            ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"].iter().any(|entity| text[at..].starts_with(entity));
        assert!(entity, "a bare & in {text}");
    }
}

/// Position of the `>` that ends the tag at the start of `text`, skipping quoted attributes.
fn tag_end(text: &str) -> usize {
    let mut quoted = false;
    for (i, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '>' if !quoted => return i,
            _ => {}
        }
    }
    panic!("a tag without end: {}", &text[..text.len().min(80)]);
}
