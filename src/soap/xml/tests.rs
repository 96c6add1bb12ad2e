use super::*;

fn walk(document: &str) -> Result<Vec<String>, Error> {
    let mut xml = Reader::new(document);
    let mut seen = vec![xml.root()?.name().to_owned()];
    while xml.depth() > 0 {
        if let Some(child) = xml.next_child()? {
            seen.push(child.name().to_owned());
        }
    }
    xml.finish()?;
    Ok(seen)
}

#[test]
fn a_document_cut_at_any_byte_is_an_error() {
    let document = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a:r xmlns:a='u'><b x=\"1\">t&amp;\u{e4}<!-- c --></b>\
                    <c/><![CDATA[<d>]]><e:f xmlns:e='v'>1</e:f></a:r>";
    assert_eq!(walk(document).unwrap(), ["r", "b", "c", "f"]);
    for (end, _) in document.char_indices() {
        let cut = document.get(..end).unwrap();
        assert!(walk(cut).is_err(), "{cut}");
    }
    // Cut inside a character: what arrives is repaired to a replacement character, never to an end.
    let inside = document.find('\u{e4}').unwrap() + 1;
    assert!(walk(&String::from_utf8_lossy(&document.as_bytes()[..inside])).is_err());
}

#[test]
fn a_text_is_one_text_whatever_it_is_made_of() {
    let mut xml = Reader::new(
        "<r><a>x &amp; y&#39;s &#x4e;&lt;&gt;&quot;&apos;<![CDATA[<raw>]]><!-- no -->!</a><b/></r>",
    );
    xml.root().unwrap();
    assert_eq!(xml.next_child().unwrap().unwrap().name(), "a");
    assert_eq!(xml.text().unwrap(), "x & y's N<>\"'<raw>!");
    assert_eq!(xml.next_child().unwrap().unwrap().name(), "b");
    assert_eq!(xml.text().unwrap(), "");
    assert!(xml.next_child().unwrap().is_none());
    xml.finish().unwrap();
    let mut xml = Reader::new("<r>a&#0;b&#x110000;c</r>");
    xml.root().unwrap();
    assert_eq!(xml.text().unwrap(), "a\u{fffd}b\u{fffd}c", "no characters");
    let mut xml = Reader::new("<r>a<b>c</b>d</r>");
    xml.root().unwrap();
    assert!(matches!(xml.text(), Err(Error::Unexpected { .. })));
    let mut xml = Reader::new("<r>a<b>c</b>d&amp;</r>");
    xml.root().unwrap();
    assert_eq!(xml.loose_text().unwrap(), "ad&");
    assert_eq!(xml.depth(), 0);
}

#[test]
fn both_type_attributes_are_found_whatever_the_prefix() {
    let both = |tag: &str| {
        let mut xml = Reader::new(tag);
        let element = xml.root().unwrap();
        (
            element.xsi_type().map(Cow::into_owned),
            element.object_type().map(Cow::into_owned),
        )
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        both("<v type=\"Folder\" xsi:type=\"ManagedObjectReference\"/>"),
        (some("ManagedObjectReference"), some("Folder"))
    );
    // vcsim binds the namespace to a prefix of its own on the element itself.
    assert_eq!(
        both(
            "<v xmlns:_XMLSchema-instance=\"http://www.w3.org/2001/XMLSchema-instance\" \
             _XMLSchema-instance:type=\"xsd:string\"/>"
        ),
        (some("string"), None)
    );
    // A prefix that is called type is no type.
    assert_eq!(both("<v xmlns:type=\"urn:x\"/>"), (None, None));
}

#[test]
fn what_would_cost_without_bound_is_refused() {
    let deep = format!(
        "{}{}",
        "<a>".repeat(DEPTH_LIMIT + 1),
        "</a>".repeat(DEPTH_LIMIT + 1)
    );
    assert!(matches!(walk(&deep), Err(Error::TooDeep)));
    let deepest = format!("{}{}", "<a>".repeat(DEPTH_LIMIT), "</a>".repeat(DEPTH_LIMIT));
    assert!(walk(&deepest).is_ok());
    let attributes: String = (0..80_000).map(|n| format!(" a{n}=\"\"")).collect();
    assert!(matches!(
        walk(&format!("<r{attributes}/>")),
        Err(Error::TagTooLong)
    ));
    let long = format!("<r>{}</r>", "x".repeat(TEXT_LIMIT_BYTES + 1));
    let mut xml = Reader::new(&long);
    xml.root().unwrap();
    assert!(matches!(xml.text(), Err(Error::TextTooLong)));
    let runs = format!("<r>{}</r>", "x&amp;".repeat(TEXT_LIMIT_BYTES));
    let mut xml = Reader::new(&runs);
    xml.root().unwrap();
    assert!(matches!(xml.text(), Err(Error::TextTooLong)));
}

#[test]
fn what_is_no_vsphere_document_is_refused() {
    assert!(matches!(
        walk("<!DOCTYPE r [<!ENTITY a \"b\">]><r>&a;</r>"),
        Err(Error::Doctype)
    ));
    let mut xml = Reader::new("<r>&lol;</r>");
    xml.root().unwrap();
    assert!(matches!(xml.text(), Err(Error::UnknownEntity(name)) if name == "lol"));
    assert!(matches!(
        walk("<?xml version=\"1.0\" encoding=\"UTF-16\"?><r/>"),
        Err(Error::Encoding(_))
    ));
    assert!(walk("").is_err());
    assert!(walk("plain text").is_err());
    assert!(walk("<a></b>").is_err());
    assert!(walk("<a/><b/>").is_err(), "two roots");
    for after in ["x", " x", "&amp;", "<![CDATA[x]]>"] {
        assert!(
            walk(&format!("<a/>{after}")).is_err(),
            "text after the end: {after}"
        );
    }
    assert!(walk("<a/>\n <!-- c --> ").is_ok());
    assert!(walk("<a/></b>").is_err());
}

#[test]
fn the_writer_escapes_and_refuses_what_xml_cannot_carry() {
    let mut xml = Writer::new(0);
    xml.open("a")
        .object("o", "Folder", "vm-1&")
        .text("t", "<\r\n\t'ä>")
        .close();
    let document = xml.finish().unwrap();
    assert_eq!(
        document,
        "<a><o type=\"Folder\">vm-1&amp;</o><t>&lt;&#13;&#10;&#9;'ä&gt;</t></a>"
    );
    let mut back = Reader::new(&document);
    back.root().unwrap();
    assert_eq!(
        back.next_child().unwrap().unwrap().object_type().unwrap(),
        "Folder"
    );
    back.text().unwrap();
    back.next_child().unwrap();
    assert_eq!(back.text().unwrap(), "<\r\n\t'ä>");

    let mut xml = Writer::new(0);
    xml.open("a").text("password", "a\u{1}b");
    let refused = xml.finish().unwrap_err().to_string();
    assert_eq!(
        refused,
        "<password> would hold the control character U+0001, which XML cannot carry; remove it"
    );
}

/// Every part of a document as text, through the short cuts where `short`.
fn parts(document: &str, short: bool) -> Result<Vec<String>, Error> {
    let mut xml = Reader::new(document);
    let mut seen = vec![xml.root()?.name().to_owned()];
    loop {
        if short {
            while let Some(text) = xml.leaf("v") {
                seen.push(format!("v={text}"));
            }
            if let Some([a, b]) = xml.leaves("p", ["a", "b"]) {
                seen.push(format!("p a={a} b={b}"));
                continue;
            }
        }
        let Some(child) = xml.next_child()? else { break };
        match child.name() {
            "v" => seen.push(format!("v={}", xml.text()?)),
            "p" => {
                let mut text = "p".to_owned();
                while let Some(field) = xml.next_child()? {
                    let name = field.name().to_owned();
                    text = format!("{text} {name}={}", xml.text()?);
                }
                seen.push(text);
            }
            other => {
                seen.push(other.to_owned());
                xml.skip()?;
            }
        }
    }
    assert_eq!(xml.depth(), 0);
    xml.finish()?;
    Ok(seen)
}

#[test]
fn a_short_cut_reads_what_the_long_way_reads() {
    let documents = [
        "<r><v>1,2</v><v></v><p><a>1</a><b>x</b></p><v>3</v></r>",
        "<r><v/><v>1</v><p/><v>2</v></r>",
        "<r/>",
        "<r><v x='1'>1</v><v >2</v ><v>a&amp;b</v><v>a<!-- c -->b</v><v><![CDATA[c]]></v></r>",
        "<r><p><a>1</a><b>2</b><c>3</c></p><p><b>2</b><a>1</a></p><p><a/><b>2</b></p><p> <a>1</a><b>2</b></p></r>",
        "<r>\n<v>1</v>\n<n:v xmlns:n='u'>2</n:v><vv>3</vv><v>\u{e4}\u{20ac}</v></r>",
        "<r><v>1</w></r>",
        "<r><v>1<w>2</w></v></r>",
        "<r><v>&unknown;</v></r>",
        "<r><p><a>1</a><b>2</b></q></r>",
        "<r><v>1</v></r><v>2</v>",
        "<r x='/'><v>1</v></r>",
    ];
    for document in documents {
        for (end, _) in document.char_indices().chain([(document.len(), ' ')]) {
            let cut = document.get(..end).unwrap();
            match (parts(cut, true), parts(cut, false)) {
                (Ok(short), Ok(long)) => assert_eq!(short, long, "{cut}"),
                (short, long) => assert!(short.is_err() && long.is_err(), "{cut}: {short:?}, {long:?}"),
            }
        }
    }
    let plain = "<r><v>1</v><p><a>2</a><b></b></p><v>3</v></r>";
    let mut xml = Reader::new(plain);
    assert_eq!(xml.leaf("r"), None, "the root is entered with its guards");
    xml.root().unwrap();
    assert_eq!(xml.leaf("p"), None);
    assert_eq!(xml.leaf("v"), Some("1"));
    assert_eq!(xml.leaves("p", ["a"]), None);
    assert_eq!(xml.leaves("p", ["a", "b"]), Some(["2", ""]));
    assert_eq!(xml.leaf("v"), Some("3"));
    assert!(xml.next_child().unwrap().is_none());
    xml.finish().unwrap();
}

#[test]
fn a_short_cut_does_not_take_what_follows_an_empty_element_for_its_child() {
    let mut xml = Reader::new("<r><p/><v>1</v><v>2</v></r>");
    xml.root().unwrap();
    assert_eq!(xml.next_child().unwrap().unwrap().name(), "p");
    assert_eq!(xml.leaf("v"), None, "this is inside p, which is empty");
    assert!(xml.next_child().unwrap().is_none());
    assert_eq!(xml.next_child().unwrap().unwrap().name(), "v");
    assert_eq!(xml.text().unwrap(), "1");
    assert_eq!(xml.leaf("v"), Some("2"));
}

#[test]
fn a_short_cut_is_bounded_like_the_long_way() {
    let long = "1".repeat(TEXT_LIMIT_BYTES + 1);
    let document = format!("<r><v>{long}</v></r>");
    assert!(matches!(parts(&document, true), Err(Error::TextTooLong)));
    let deep = |levels: usize| {
        let document = format!("{}<v>1</v>{}", "<d>".repeat(levels), "</d>".repeat(levels));
        let mut xml = Reader::new(&document);
        xml.root().unwrap();
        for _ in 1..levels {
            xml.next_child().unwrap().unwrap();
        }
        (xml.leaf("v").is_some(), xml.next_child().is_err())
    };
    assert_eq!(deep(DEPTH_LIMIT - 1), (true, false));
    assert_eq!(deep(DEPTH_LIMIT), (false, true), "refused by the reader itself");
}
