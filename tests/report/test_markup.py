from kd.report.markup import Markup, document, element, table


def test_plain_text_is_escaped_once_and_markup_never():
    inner = element("b", '1 < 2 & "3"')

    assert inner == "<b>1 &lt; 2 &amp; &quot;3&quot;</b>"
    assert element("p", inner, None, "<i>") == f"<p>{inner}&lt;i&gt;</p>"


def test_attributes_are_escaped():
    assert element("p", class_='a"><script>') == (
        '<p class="a&quot;&gt;&lt;script&gt;"></p>'
    )


def test_table_without_header_has_no_head():
    assert "<thead>" not in table(None, [("a", "b")], class_="facts-table")
    assert '<th scope="row">a</th><td>b</td>' in table(
        ("", "x"), [("a", "b")], class_="scores"
    )


def test_title_of_document_is_escaped():
    assert "<title>&lt;x&gt;</title>" in document("<x>", Markup("<p></p>"))
