"""Chat templates: token for token as in transformers, or refused with what is not supported."""

from harness import Place, case, check_equal

TURNS = [
    {"role": "system", "content": "Be brief & kind."},
    {"role": "user", "content": "Is 3 < 4? \"yes\" or 'no' -> caf\u00e9 a/b"},
    {"role": "assistant", "content": "one two three <b>four</b>\n\tfive"},
]

# One line shows what a template is made of; `m` is the message.
EXPRESSIONS = {
    "percent": "{{ '%s:%02d:%5.2f|' % (m.role, 7, 2.5) }}",
    "percent-one": "{{ '[%s]' % m.content }}",
    "split-most": "{{ m.content.rsplit(' ', 1)[0] }}/{{ m.content.split(' ', 1)[1] }}",
    "tojson": "{{ m.content | tojson }}{{ m | tojson }}",
    "tojson-ensure": "{{ m.content | tojson(ensure_ascii=True) }}{{ m.content | tojson(ensure_ascii=False) }}",
    "tojson-layout": "{{ m | tojson(indent=2) }}{{ m | tojson(separators=(',', ':')) }}",
    "tojson-values": "{{ [1.0, 1e20, true, none, 2, 0.1, {'a': []}] | tojson }}",
    "wordcount": "{{ m.content | wordcount }} {{ m.content | length }}",
    "strip": "{{ m.content.strip('Bcaf') }}|{{ m.content.lstrip('Is ') }}|{{ m.content | trim }}",
    "python-values": "{{ true }} {{ none }} {{ 1.0 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 3 }} {{ 7 / 2 }}",
    "python-lists": "{{ [1, 'a', none, true] }} {{ {'k': 'v'} }} {{ (1, 2) }}",
    "slices": "{{ m.content[::-1] }} {{ m.content[1:9:2] }} {{ messages[-1].role }} {{ messages[1:] | length }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for c in m.content %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "loops": "{% for w in m.content.split() %}{{ loop.index0 }}{{ loop.last }}{{ loop.previtem | default('-') }} {% endfor %}",
    "break": "{% for w in m.content.split() %}{% if loop.index > 2 %}{% break %}{% endif %}{{ w }}{% endfor %}",
    "tests": "{{ m is mapping }} {{ m.content is string }} {{ m.none is defined }} {{ 3 is odd }} {{ m.content is iterable }}",
    "selects": "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('|') }}",
    "replace": "{{ m.content.replace('e', 'E', 2) }} {{ m.content | replace('a', 'A') }} {{ m.content | upper }} {{ m.role | title }}",
    "format": "{{ '{}-{:>4}'.format(m.role, 7) }} {{ '%s!' | format(m.role) }}",
    "macro": "{% macro turn(x, y='.') %}<{{ x }}{{ y }}>{% endmacro %}{{ turn(m.role) }}{{ turn(m.role, y='!') }}",
    "joins": "{{ '-' * 3 }}{{ [1] + [2] }}{{ 'a' ~ 1 ~ none }}{{ 1 < 2 < 3 }}{{ 'ri' in m.content }}",
    "items": "{% for k, v in m.items() %}{{ k }}={{ v | length }};{% endfor %}{{ m.get('name', 'nobody') }}{{ m | list | sort | first }}",
    "inline-if": "{{ 'x' if m.role == 'user' }}{{ 'y' if m.role == 'user' else 'n' }}{{ m.missing or 'none' }}",
    "white-space": "  {%- if true %}\n    a\n  {%- endif %}\n  {% if true %}\n    b\n  {% endif %}\n",
    "text-tests": "{{ m.content.startswith('Be') }}{{ m.content.endswith(('e', 'five')) }}{{ m.content.find('t') }}{{ m.content.count('e') }}",
    "rounding": "{{ 2.567 | round(1) }} {{ 2.5 | round }} {{ 3.0 | int }} {{ '4' | int + 1 }} {{ 10 | float }} {{ -3 | abs }}",
}


def expression(name: str, text: str) -> None:
    @case(f"template-{name}")
    def run(place: Place) -> None:
        model = place.tiny("llama")
        template = "{% for m in messages %}<|im_start|>" + text + "<|im_end|>{% endfor %}"
        model.edit("tokenizer_config.json", chat_template=template, tokenizer_class="PreTrainedTokenizerFast")
        model.edit(max_position_embeddings=4096)
        rows = place.rows({"messages": TURNS})
        found = place.tokens(model, rows, "--loss-on", "all", "--max-tokens", 4000)[0]
        right = model.tokenizer().apply_chat_template(TURNS, return_dict=False)
        check_equal(found, right, "tokens of a conversation")


for name, text in EXPRESSIONS.items():
    expression(name, text)


@case("template-not-supported")
def template_not_supported(place: Place) -> None:
    for number, text in enumerate(["{{ messages | shuffle_all }}", "{{ messages[0].content.frobnicate() }}", "{% include 'x' %}"]):
        model = place.tiny("llama", f"model-{number}")
        model.edit("tokenizer_config.json", chat_template=text)
        place.evaluate(model, place.rows({"messages": TURNS})).refused("template", "not supported")


@case("template-refuses")
def template_refuses(place: Place) -> None:
    model = place.tiny("llama").edit("tokenizer_config.json", chat_template="{{ raise_exception('turns must alternate') }}")
    place.evaluate(model, place.rows({"messages": TURNS})).refused("turns must alternate")


@case("template-without-end")
def template_without_end(place: Place) -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}"
    model = place.tiny("llama").edit("tokenizer_config.json", chat_template=endless)
    place.evaluate(model, place.rows({"messages": TURNS})).refused("template")
