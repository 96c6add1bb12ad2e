use super::*;
use crate::soap::envelope::Reply;
use crate::soap::error::Error;

fn soap(detail: &str) -> Fault {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<soapenv:Envelope xmlns:soapenc=\"http://schemas.xmlsoap.org/soap/\
         encoding/\" xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n\
         <soapenv:Body>\n<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>Es geht &amp; \
         nicht.</faultstring>{detail}</soapenv:Fault>\n</soapenv:Body>\n</soapenv:Envelope>"
    );
    match Reply::received("QueryPerf", body).read(|_| Ok(())) {
        Err(Error::Fault { fault, .. }) => *fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fault_is_known_by_its_type_and_keeps_what_it_names() {
    let fault = soap(
        "<detail><NotAuthenticatedFault xmlns=\"urn:vim25\" xsi:type=\"NotAuthenticated\">\
         <faultCause><fault xsi:type=\"NoPermission\"/><localizedMessage/></faultCause>\
         <object type=\"Folder\">group-d1</object><privilegeId>System.View</privilegeId>\
         </NotAuthenticatedFault></detail>",
    );
    assert_eq!(
        fault.kind,
        FaultKind::NotAuthenticated,
        "not the NoPermission that it is a subtype of"
    );
    assert_eq!(fault.object, Some(MoRef::new("group-d1")));
    assert_eq!(
        fault.to_string(),
        "NotAuthenticated (object group-d1, privilege System.View), \"Es geht & nicht.\""
    );
    let fault = soap(
        "<detail><ManagedObjectNotFoundFault xmlns=\"urn:vim25\" xsi:type=\"ManagedObjectNotFound\">\
         <obj type=\"VirtualMachine\">vm-42</obj></ManagedObjectNotFoundFault></detail>",
    );
    assert_eq!(
        (fault.kind, fault.object),
        (FaultKind::ManagedObjectNotFound, Some(MoRef::new("vm-42")))
    );
    let fault = soap(
        "<detail><InvalidArgumentFault xmlns=\"urn:vim25\"><invalidProperty>querySpec.interval</invalidProperty>\
         </InvalidArgumentFault></detail>",
    );
    assert_eq!(
        fault.kind,
        FaultKind::InvalidArgument,
        "from the element where the type is not given"
    );
    assert_eq!(fault.property.as_deref(), Some("querySpec.interval"));
}

#[test]
fn aliases_unknown_types_and_faults_without_a_type_are_faults() {
    let kind = |detail: &str| soap(detail).kind;
    assert_eq!(
        kind("<detail><Fault xsi:type=\"SystemErrorFault\"><reason>x</reason></Fault></detail>"),
        FaultKind::SystemError
    );
    assert_eq!(
        kind("<detail><Fault xsi:type=\"vim25:InvalidPropertyFault\"/></detail>"),
        FaultKind::InvalidProperty
    );
    // Ends with "Fault" by right.
    assert_eq!(
        kind("<detail><VmConfigFaultFault xsi:type=\"VmConfigFault\"/></detail>"),
        FaultKind::Other("VmConfigFault".to_owned())
    );
    assert_eq!(
        kind("<detail><VmConfigFaultFault/></detail>"),
        FaultKind::Other("VmConfigFault".to_owned())
    );
    assert_eq!(kind(""), FaultKind::Untyped);
    assert_eq!(kind("<detail/>"), FaultKind::Untyped);
    // A field in a form that nobody expects does not hide the fault.
    let odd = soap("<detail><X xsi:type=\"NoPermission\"><object><a>b</a>vm-1</object></X></detail>");
    assert_eq!(
        (odd.kind, odd.object),
        (FaultKind::NoPermission, Some(MoRef::new("vm-1")))
    );
}

#[test]
fn a_localized_fault_is_read_inside_a_reply() {
    let mut xml = Reader::new(
        "<error xmlns:i=\"http://www.w3.org/2001/XMLSchema-instance\"><fault i:type=\"InvalidPowerState\">\
         <requestedState>poweredOff</requestedState><existingState>poweredOn</existingState></fault>\
         <localizedMessage>no</localizedMessage></error>",
    );
    xml.root().unwrap();
    let fault = Fault::read_localized(&mut xml).unwrap();
    assert_eq!(fault.kind, FaultKind::InvalidPowerState);
    assert_eq!(fault.existing_state.as_deref(), Some("poweredOn"));
    xml.finish().unwrap();
}

#[test]
fn every_known_kind_keeps_its_name() {
    for name in [
        "NotAuthenticated",
        "NoPermission",
        "InvalidLogin",
        "PasswordExpired",
        "ManagedObjectNotFound",
        "RestrictedByAdministrator",
        "HostNotConnected",
        "Timedout",
    ] {
        let kind = FaultKind::from_name(name);
        assert_eq!((kind.label(), kind.to_string().as_str()), (name, name));
    }
    assert_eq!(FaultKind::from_name("Novel").label(), "Other");
    assert!(FaultKind::from_name(&"x".repeat(1 << 20)).to_string().len() <= 200);
}

#[test]
fn a_fault_of_an_unknown_type_is_one_line_whatever_it_is_called() {
    let fault =
        soap("<detail><x xsi:type=\"Evil\n&lt;3&gt;forged\u{9b}2J\r\"><reason>a\nb</reason></x></detail>");
    let text = fault.to_string();
    assert!(
        text.contains("forged") && !text.contains(char::is_control),
        "{text:?}"
    );
}
