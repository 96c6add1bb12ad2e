//! Replies as text.

/// Starts a reply; [`end`] completes it.
pub(crate) fn begin(method: &str) -> String {
    let mut out = String::with_capacity(4096);
    envelope(&mut out);
    out.push('<');
    out.push_str(method);
    out.push_str("Response xmlns=\"urn:vim25\">");
    out
}

pub(super) fn envelope(out: &mut String) {
    out.push_str(concat!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
        "<soapenv:Envelope xmlns:soapenc=\"http://schemas.xmlsoap.org/soap/encoding/\"\n",
        " xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"\n",
        " xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\"\n",
        " xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n",
        "<soapenv:Body>\n"
    ));
}

/// Completes a reply.
pub(crate) fn end(mut out: String, method: &str) -> String {
    out.push_str("</");
    out.push_str(method);
    out.push_str("Response>\n</soapenv:Body>\n</soapenv:Envelope>\n");
    out
}

/// Appends text with the characters escaped that XML needs escaped.
pub(crate) fn escape(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>']) {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = tail.chars();
        out.push_str(match chars.next() {
            Some('&') => "&amp;",
            Some('<') => "&lt;",
            _ => "&gt;",
        });
        rest = chars.as_str();
    }
    out.push_str(rest);
}

/// Appends `<name>text</name>`.
pub(crate) fn element(out: &mut String, name: &str, text: &str) {
    out.push('<');
    out.push_str(name);
    out.push('>');
    escape(out, text);
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

/// Appends `<name type="kind">value</name>`.
pub(crate) fn moref(out: &mut String, name: &str, kind: &str, value: &str) {
    out.push('<');
    out.push_str(name);
    out.push_str(" type=\"");
    out.push_str(kind);
    out.push_str("\">");
    escape(out, value);
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}
