mod example;
#[test]
fn pages() {
    for (name, report) in example::all() {
        std::fs::write(
            format!("/tmp/abr/{name}.html"),
            kdhost_ab::html::render(&report),
        )
        .unwrap();
        std::fs::write(
            format!("/tmp/abr/{name}.md"),
            kdhost_ab::markdown::table(&report),
        )
        .unwrap();
    }
}
