"""Chat templates of our own, each built of the constructs that a family of models uses."""

TEMPLATES = {}

TEMPLATES["llama-2"] = """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set told = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set told = false %}{% endif %}{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Turns of the user and of the assistant have to alternate, in turn ' ~ loop.index) }}{% endif %}{% if loop.index0 == 0 and told != false %}{% set content = '[[told]]\\n' + told + '\\n[[/told]]\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[ASK] ' + content.strip() + ' [/ASK]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

TEMPLATES["llama-3"] = """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|head|>' + message['role'] + '<|/head|>\n\n' + message['content'] | trim + '<|turn_end|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}"""

TEMPLATES["llama-3.1-tools"] = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not in_user_turn is defined %}
    {%- set in_user_turn = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system turn is taken off, so that it can be placed at the right spot. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set told = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set told = "" %}
{%- endif %}

{{- "<|head|>system<|/head|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Place: shell\\n" }}
{%- endif %}
{{- "Today is: " + date_string + "\\n\\n" }}
{{- told }}
{{- "<|turn_end|>" }}

{%- if in_user_turn and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("There is no first turn of the user to put tools into") }}
    {%- endif %}
    {{- '<|head|>user<|/head|>\\n\\n' -}}
    {{- "These functions can be called. Answer with {\\"name\\": ..., \\"parameters\\": ...}.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first + "<|turn_end|>"}}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n'+ message['content'] | trim + '<|turn_end|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("Only one call at a time is possible") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|head|>assistant<|/head|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|turn_end|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|head|>ipython<|/head|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|turn_end|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\\n\\n' }}
{%- endif %}
"""

TEMPLATES["llama-3.2-vision"] = """{{- bos_token }}{#- Parts or text #}
{%- set has_image = namespace(value=false) %}
{%- for message in messages %}
    {%- if message.content is not string and message.content is sequence %}
        {%- for content in message['content'] %}
            {%- if content['type'] == 'image' %}
                {%- set has_image.value = true %}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
{{- 'I' if has_image.value else 'T' }}
{%- for message in messages %}
    {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- elif message.content %}
        {%- for content in message['content'] %}
            {%- if content['type'] == 'image' %}
                {{- '<|picture|>' }}
            {%- elif content['type'] == 'text' %}
                {{- content['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|turn_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\\n\\n' }}
{%- endif %}
"""

TEMPLATES["llama-4"] = """{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'user' and message['content'] is not string -%}
        {%- set ns = namespace(text='') -%}
        {%- for part in message['content'] if part.type == 'text' -%}
            {%- set ns.text = ns.text ~ part['text'] -%}
        {%- endfor -%}
        {{- '<|h|>user<|/h|>' ~ ns.text ~ '<|e|>' -}}
    {%- else -%}
        {{- '<|h|>' ~ message.role ~ '<|/h|>' -}}
        {%- if message.content is string -%}{{- message.content -}}
        {%- elif message.content -%}{%- for part in message.content -%}{{- part.get('text', '') -}}{%- endfor -%}
        {%- endif -%}
        {%- if message.tool_calls is defined and message.tool_calls | length > 0 -%}
            {{- '<|calls|>[' -}}
            {%- for tool_call in message.tool_calls -%}
                {%- if tool_call.function is defined -%}{%- set tool_call = tool_call.function -%}{%- endif -%}
                {{- tool_call.name ~ '(' -}}
                {%- for param in tool_call.arguments -%}
                    {{- param + '="' -}}{{- "%s" | format(tool_call.arguments[param]) -}}{{- '"' -}}
                    {%- if not loop.last -%}, {% endif -%}
                {%- endfor -%}
                {{- ')' -}}{%- if not loop.last -%}, {% endif -%}
            {%- endfor -%}
            {{- ']<|/calls|>' -}}
        {%- endif -%}
        {{- '<|e|>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|h|>assistant<|/h|>\\n\\n' -}}{%- endif -%}
"""

TEMPLATES["mistral-v1"] = """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant must take turns') }}{% endif %}{% if message['role'] == 'user' %}{{ '[ASK] ' + message['content'] + ' [/ASK]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}{% else %}{{ raise_exception('Only user and assistant are known!') }}{% endif %}{% endfor %}"""

TEMPLATES["mistral-v3-tools"] = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- Asked and answered turns alternate, calls and their results aside. #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("Asked and answered turns must alternate, calls aside") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/TOOLS]" }}
            {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[ASK] " + system_message + "\\n\\n" + message["content"] + "[/ASK]" }}
        {%- else %}
            {{- "[ASK] " + message["content"] + "[/ASK]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("A call's id has nine letters") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[RESULT] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/RESULT]' }}
    {%- else %}
        {{- raise_exception("user, assistant and tool are all the roles there are") }}
    {%- endif %}
{%- endfor %}
"""

TEMPLATES["mistral-v7"] = """{%- set today = strftime_now("%Y-%m-%d") %}
{%- set default_told = "You are a model.\\nIt is " + today + ".\\n\\n# Rules" %}
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- if messages[0]['content'] is string %}
        {%- set told = messages[0]['content'] %}
    {%- else %}
        {%- set told = messages[0]['content'][0]['text'] %}
    {%- endif %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set told = default_told %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '[TOLD]' + told + '[/TOLD]' }}
{%- for message in loop_messages %}
    {%- if message['role'] == 'user' %}
        {%- if message['content'] is string %}
            {{- '[ASK]' + message['content'] + '[/ASK]' }}
        {%- else %}
            {{- '[ASK]' }}
            {%- for block in message['content'] %}
                {%- if block['type'] == 'text' %}
                    {{- block['text'] }}
                {%- elif block['type'] in ['image', 'image_url'] %}
                    {{- '[PICTURE]' }}
                {%- else %}
                    {{- raise_exception('Only text and pictures') }}
                {%- endif %}
            {%- endfor %}
            {{- '[/ASK]' }}
        {%- endif %}
    {%- elif message['role'] == 'system' %}
        {{- '[TOLD]' + message['content'] + '[/TOLD]' }}
    {%- elif message['role'] == 'assistant' %}
        {%- if message['content'] is string %}
            {{- message['content'] + eos_token }}
        {%- else %}
            {{- message['content'][0]['text'] + eos_token }}
        {%- endif %}
    {%- else %}
        {{- raise_exception('Only user, system and assistant, not ' + message['role']) }}
    {%- endif %}
{%- endfor %}"""

TEMPLATES["chatml"] = """{% for message in messages %}{{'<|from|>' + message['role'] + '\n' + message['content'] + '<|to|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|from|>assistant\n' }}{% endif %}"""

TEMPLATES["chatml-default-system"] = """{%- if not add_generation_prompt is defined -%}{%- set add_generation_prompt = false -%}{%- endif -%}{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|from|>system\nBe of help.<|to|>\n' }}{% endif %}{{'<|from|>' + message['role'] + '\n' + message['content'] + '<|to|>'}}{% if (loop.last and add_generation_prompt) or not loop.last %}{{ '\n' }}{% endif %}{% endfor %}{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}{{ '<|from|>assistant\n' }}{% endif %}"""

TEMPLATES["qwen2"] = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}<|from|>system
Be of help.<|to|>
{% endif %}<|from|>{{ message['role'] }}
{{ message['content'] }}<|to|>{% if not loop.last or add_generation_prompt %}
{% endif %}{% endfor %}{% if add_generation_prompt %}<|from|>assistant
{% endif %}"""

TEMPLATES["qwen2.5-tools"] = """{%- if tools %}
    {{- '<|from|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'Be of help.' }}
    {%- endif %}
    {{- "\\n\\n# Functions\\n\\nThey are within <functions></functions>:\\n<functions>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</functions>\\n\\nA call is:\\n<call>\\n{\\"name\\": <name>, \\"arguments\\": <object>}\\n</call><|to|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|from|>system\\n' + messages[0]['content'] + '<|to|>\\n' }}
    {%- else %}
        {{- '<|from|>system\\nBe of help.<|to|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|from|>' + message.role + '\\n' + message.content + '<|to|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|from|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</call>' }}
        {%- endfor %}
        {{- '<|to|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|from|>user' }}
        {%- endif %}
        {{- '\\n<result>\\n' }}
        {{- message.content }}
        {{- '\\n</result>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|to|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|from|>assistant\\n' }}
{%- endif %}
"""

TEMPLATES["qwen3-thinking"] = """{%- set ns = namespace(multi_step=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<result>') and message.content.endswith('</result>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or (not loop.last and reasoning)) %}
            {{- '<|from|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|from|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- set tool_call = tool_call.function or tool_call %}
                {{- '<call>\\n{"name": "' ~ tool_call.name ~ '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|to|>\\n' }}
    {%- else %}
        {{- '<|from|>' + message.role + '\\n' + content + '<|to|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|from|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

TEMPLATES["qwen3-coder"] = """{%- macro item_list(items, name) -%}
    {%- if items is iterable and items is not string and items | length > 0 -%}
        {{- '\\n<' ~ name ~ '>' -}}
        {%- for item in items -%}
            {{- ' [' if loop.first else ', ' -}}
            {{- ("`" ~ item ~ "`") -}}
            {%- if loop.last -%}{{- ']' -}}{%- endif -%}
        {%- endfor -%}
        {{- '</' ~ name ~ '>' -}}
    {%- endif -%}
{%- endmacro -%}
{%- for tool in tools or [] %}
    {%- set tool = tool.function if tool.function is defined else tool %}
    {{- '\\n<function><name>' ~ tool.name ~ '</name>' ~ tool.description | trim }}
    {%- for name, field in (tool.parameters.properties or {}) | items %}
        {{- '\\n<parameter><name>' ~ name ~ '</name>' }}
        {%- if field.type is defined %}{{- '<type>' ~ (field.type | string) ~ '</type>' }}{%- endif %}
        {{- item_list(field.enum, 'enum') }}
        {%- for key in field.keys() | reject('in', ['type', 'enum', 'description']) %}
            {%- set name = key | replace("-", "_") | replace(" ", "_") | replace("$", "") %}
            {%- if field[key] is mapping %}{{- '\\n<' ~ name ~ '>' ~ (field[key] | tojson | safe) ~ '</' ~ name ~ '>' }}
            {%- else %}{{- '\\n<' ~ name ~ '>' ~ (field[key] | string) ~ '</' ~ name ~ '>' }}{%- endif %}
        {%- endfor %}
    {%- endfor %}
    {{- item_list(tool.parameters.required, 'required') }}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and message.tool_calls is defined and message.tool_calls is iterable and message.tool_calls | length > 0 %}
        {{- '\\n<|from|>assistant' }}
        {%- if message.content is defined and message.content is string and message.content | trim | length > 0 %}{{- '\\n' + message.content | trim + '\\n' }}{%- endif %}
        {%- for tool_call in message.tool_calls | map(attribute='function') %}
            {{- '\\n<call=' + tool_call.name + '>' }}
            {%- for name, value in tool_call.arguments | items %}
                {%- set value = value if value is string else value | string %}
                {{- '\\n<' + name + '>' + value + '</' + name + '>' }}
            {%- endfor %}
            {{- '\\n</call>' }}
        {%- endfor %}
        {{- '<|to|>' }}
    {%- else %}
        {{- '\\n<|from|>' + message.role + '\\n' + message.content | string + '<|to|>' }}
    {%- endif %}
{%- endfor %}
{{- '\\n<|from|>assistant\\n' if add_generation_prompt }}"""

TEMPLATES["gemma"] = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('There is no role of the system') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles alternate: user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<turn>' + role + '\n' + message['content'] | trim + '</turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<turn>model\n'}}{% endif %}"""

TEMPLATES["gemma-3"] = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Roles must alternate") }}
    {%- endif -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<picture>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Content is text or parts") }}
    {%- endif -%}
    {{ '</turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<turn>model
'}}
{%- endif -%}
"""

TEMPLATES["phi-3"] = """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}"""

TEMPLATES["phi-4-mini"] = """{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"""

TEMPLATES["zephyr"] = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

TEMPLATES["command-r"] = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% elif false == true %}{% set loop_messages = messages %}{% set system_message = 'Be kind.' %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% if system_message != false %}{{ '<|T|><|SYS|>' + system_message + '<|/T|>' }}{% endif %}{% for message in loop_messages %}{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|T|><|USR|>' + content.strip() + '<|/T|>' }}{% elif message['role'] == 'assistant' %}{{ '<|T|><|BOT|>'  + content.strip() + '<|/T|>' }}{% endif %}{% endfor %}{% if documents %}{{ '<|T|><|SYS|><results>' }}{% for document in documents %}{{ '\nDocument: ' ~ loop.index0 ~ '\n' }}{% for key, value in document.items() %}{{ key ~ ': ' ~ value ~ '\n' }}{% endfor %}{% endfor %}{{ '</results><|/T|>' }}{% endif %}{% if add_generation_prompt %}{{ '<|T|><|BOT|>' }}{% endif %}"""

TEMPLATES["command-r-tools"] = """{%- macro json_to_python_type(json_spec) %}
{%- set basic = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
{%- if json_spec.type is string and basic[json_spec.type] is defined %}
    {{- basic[json_spec.type] }}
{%- elif json_spec.type == "array" %}
    {{- "List[" + json_to_python_type(json_spec['items']) + "]" }}
{%- elif json_spec.type == "object" %}
    {{- "Dict" }}
{%- elif json_spec.type is iterable and json_spec.type is not string %}
    {{- "Union[" }}
    {%- for t in json_spec.type %}
        {{- json_to_python_type({"type": t}) }}
        {%- if not loop.last %}{{- "," }}{%- endif %}
    {%- endfor %}
    {{- "]" }}
{%- else %}
    {{- "Any" }}
{%- endif %}
{%- endmacro %}
{%- macro document_turn(documents) -%}
{%- for document in documents %}{{ '\\nDocument: ' }}{{ loop.index0 }}
{% for key, value in document.items() %}{{ key }}: {{ value }}{% if not loop.last %}

{% endif %}{% endfor %}{% if not loop.last %}

{% endif %}{% endfor %}
{%- endmacro %}
{{- bos_token }}
{%- for tool in tools or [] %}
{{ loop.index }}. def {{ tool.function.name }}(
{%- for name, fields in tool.function.parameters.properties.items() %}
{{- name }}: {% if name not in (tool.function.parameters.required or []) %}Optional[{% endif %}{{ json_to_python_type(fields) }}{% if name not in (tool.function.parameters.required or []) %}] = None{% endif %}{{ ", " if not loop.last }}
{%- endfor %}):
    \"\"\"{{ tool.function.description }}\"\"\"
{% endfor %}
{%- for message in messages %}
<{{ message.role|upper }}>{{ message.content if message.content is string }}
{%- if message.tool_calls %}
{{ 'Action: ```json\\n[' }}
{%- for call in message.tool_calls %}
    {
        "tool_name": "{{ call['function']['name'] }}",
        "parameters": {{ call['function']['arguments'] | tojson(indent=4) | indent(8) }}
    }{{ ',' if not loop.last }}
{%- endfor %}
{{ ']```' }}
{%- endif %}
{%- endfor %}
{%- if documents %}{{ document_turn(documents) }}{% endif %}
{% if add_generation_prompt %}<BOT>{% endif %}"""

TEMPLATES["deepseek-v2"] = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n\n' }}{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""

TEMPLATES["deepseek-r1"] = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='', is_first_sp=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<U>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' in message %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls'] %}{%- if not ns.is_first %}{%- if message['content'] is none %}{{'<A><CALLS><CALL>' + tool['type'] + '<SEP>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments']|tojson + '\\n' + '```' + '</CALL>'}}{%- else %}{{'<A>' + message['content'] + '<CALLS><CALL>' + tool['type'] + '<SEP>' + tool['function']['name'] + '\\n' + tool['function']['arguments']|tojson + '</CALL>'}}{%- endif %}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + '<CALL>' + tool['type'] + '<SEP>' + tool['function']['name'] + '</CALL>'}}{%- endif %}{%- endfor %}{{'</CALLS><E>'}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' not in message %}{%- if ns.is_tool %}{{'</OUTS>' + message['content'] + '<E>'}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<A>' + content + '<E>'}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<OUTS><OUT>' + message['content'] + '</OUT>'}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n<OUT>' + message['content'] + '</OUT>'}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'</OUTS>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<A><think>\\n'}}{% endif %}"""

TEMPLATES["olmo"] = """{{ bos_token }}{% for message in messages %}
{% if message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + '
' }}{% elif message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + '
' }}{% elif message['role'] == 'assistant' %}
{% if not loop.last %}
{{ '<|assistant|>
' + message['content'] + eos_token + '
' }}
{% else %}
{{ '<|assistant|>
' + message['content'] + eos_token }}{% endif %}
{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>
' }}{% endif %}{% endfor %}"""

TEMPLATES["granite"] = """{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = "Date: " + strftime_now('%B %d, %Y') + ".\\nAnswer." %}
    {%- if tools and documents %}
        {%- set system_message = system_message + " With tools and documents." %}
    {%- elif tools %}
        {%- set system_message = system_message + " With tools." %}
    {%- elif documents %}
        {%- set system_message = system_message + " By the documents only." %}
    {%- endif %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '<|role|>system<|/role|>' + system_message + '<|e|>
' }}
{%- if tools %}
    {{- '<|role|>tools<|/role|>' }}
    {{- tools | tojson(indent=4) }}
    {{- '<|e|>
' }}
{%- endif %}
{%- if documents %}
    {{- '<|role|>documents<|/role|>' }}
    {%- for document in documents %}
        {{- 'Document ' + loop.index | string + '
' }}
        {{- document['text'] }}
        {%- if not loop.last %}
            {{- '

'}}
        {%- endif%}
    {%- endfor %}
    {{- '<|e|>
' }}
{%- endif %}
{%- for message in loop_messages %}
    {{- '<|role|>' + message['role'] + '<|/role|>' + (message['content'] or '') + '<|e|>
' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|role|>assistant' }}
            {%- if controls %}
                {{- ' ' + controls | tojson()}}
            {%- endif %}
        {{- '<|/role|>' }}
    {%- endif %}
{%- endfor %}"""

TEMPLATES["falcon"] = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}{% if message['role'] == 'system' %}{{ 'System: ' + message['content'].strip() }}{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'].strip().replace('\r\n', '\n').replace('\n\n', '\n') }}{% elif message['role'] == 'assistant' %}{{ 'Falcon: ' + message['content'].strip() }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '\n' + 'Falcon:' }}{% endif %}"""

TEMPLATES["vicuna"] = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'].strip() + ' ' %}{% else %}{% set loop_messages = messages %}{% set system_message = 'A person asks a helper. ' %}{% endif %}{{ bos_token }}{{ system_message }}{% for message in loop_messages %}{% if message['role'] == 'user' %}{{ 'PERSON: ' + message['content'].strip() + ' ' }}{% elif message['role'] == 'assistant' %}{{ 'HELPER: ' + message['content'].strip() + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'HELPER:' }}{% endif %}"""

TEMPLATES["alpaca"] = """{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim ~ '\n\n' }}{% set messages = messages[1:] %}{% else %}{{ 'Do what is asked.\n\n' }}{% endif %}{% for message in messages %}{% if message['role'] == 'user' %}{{ '### Task:\n' + message['content'] | trim + '\n\n' }}{% elif message['role'] == 'assistant' %}{{ '### Answer:\n' + message['content'] | trim + '\n\n' + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Answer:\n' }}{% endif %}"""

TEMPLATES["starchat"] = """{% for message in messages %}{% if loop.first and message.role != 'system' %}<|system|>
<|end|>
{% endif %}{% if message.role in ('user', 'system', 'assistant') %}<|{{ message.role }}|>
{{ message.content }}<|end|>
{% else %}{% continue %}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""

TEMPLATES["hermes-tools"] = """{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {
    "string": "str",
    "number": "float",
    "integer": "int"
} %}
{%- if basic_type_map[json_spec.type] is defined %}
    {{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}
    {{- "list[" +  json_to_python_type(json_spec|items|list|last|last) + "]"}}
{%- else %}
    {{- "Any" }}
{%- endif %}
{%- endmacro %}

{{- bos_token }}
{{- '<|from|>system\\nFunctions: <tools> ' }}
{%- for tool in tools or [] %}
    {%- if tool.function is defined %}
        {%- set tool = tool.function %}
    {%- endif %}
    {{- '{"type": "function", "function": ' }}
    {{- '{"name": "' + tool.name + '", ' }}
    {{- '"description": "' + tool.name + '(' }}
    {%- for param_name, param_fields in tool.parameters.properties|items %}
        {%- if param_fields.type is string and param_fields.type != 'array' %}
        {{- param_name + ": " + json_to_python_type(param_fields) }}
        {%- endif %}
        {%- if not loop.last %}
            {{- ", " }}
        {%- endif %}
    {%- endfor %}
    {{- ")" }}
    {{- " - " + tool.description + "\\n\\n" if tool.description }}
    {{- '", "parameters": ' }}
    {%- if tool.parameters.properties | length == 0 %}
        {{- "{}" }}
    {%- else %}
        {{- tool.parameters|tojson }}
    {%- endif %}
    {{- "}" }}
    {%- if not loop.last %}
        {{- "\\n" }}
    {%- endif %}
{%- endfor %}
{{- " </tools><|to|>\\n" }}
{%- for message in messages %}
    {%- if message.role == "user" or message.role == "system" or (message.role == "assistant" and message.tool_calls is not defined) %}
        {{- '<|from|>' + message.role + '\\n' + message.content + '<|to|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|from|>' + message.role }}
    {%- for tool_call in message.tool_calls %}
       {{- '\\n<tool_call>\\n' }}
       {%- if tool_call.function is defined %}
           {%- set tool_call = tool_call.function %}
       {%- endif %}
       {{- '{' }}
       {{- '"name": "' }}
       {{- tool_call.name }}
       {{- '"' }}
       {%- if tool_call.arguments is defined %}
           {{- ', ' }}
           {{- '"arguments": ' }}
           {{- tool_call.arguments|tojson }}
       {%- endif %}
       {{- '}' }}
       {{- '\\n</tool_call>' }}
    {%- endfor %}
        {{- '<|to|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.previtem and loop.previtem.role != "tool" %}
            {{- '<|from|>tool\\n' }}
        {%- endif %}
        {{- '<tool_response>\\n' }}
        {{- message.content }}
        {%- if not loop.last %}
            {{- '\\n</tool_response>\\n' }}
        {%- else %}
            {{- '\\n</tool_response>' }}
        {%- endif %}
        {%- if not loop.last and loop.nextitem.role != "tool" %}
            {{- '<|to|>' }}
        {%- elif loop.last %}
            {{- '<|to|>' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|from|>assistant\\n' }}
{%- endif %}
"""

TEMPLATES["smollm3"] = """{%- set reasoning_mode = namespace(value="/think") %}
{%- if messages[0].role == "system" %}
    {%- set system_message = messages[0].content %}
    {%- if "/no_think" in system_message %}{%- set reasoning_mode.value = "/no_think" %}{%- endif %}
    {%- set custom = system_message.replace("/no_think", "").replace("/think", "").rstrip() %}
{%- endif %}
{{- "<|from|>system\\n" }}
{{- "## Facts\\n\\nToday: " ~ strftime_now("%d %B %Y") ~ "\\nMode: " + reasoning_mode.value + "\\n\\n" }}
{%- if custom %}{{- "## Rules\\n\\n" + custom + "\\n\\n" }}{%- endif %}
{%- if tools %}
    {%- set ns = namespace(text="## Tools\\n") %}
    {%- for tool in tools %}
        {%- set ns.text = ns.text + (tool | string) + "\\n" %}
    {%- endfor %}
    {{- ns.text }}
{%- endif %}
{{- "<|to|>\\n" }}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else "" %}
    {%- if message.role == "user" %}
        {{- "<|from|>user\\n" + content + "<|to|>\\n" }}
    {%- elif message.role == "assistant" %}
        {% generation %}
        {%- if reasoning_mode.value == "/think" %}
            {{- "<|from|>assistant\\n" + content.lstrip("\\n") + "<|to|>\\n" }}
        {%- else %}
            {{- "<|from|>assistant\\n<think>\\n\\n</think>\\n" + content.lstrip("\\n") + "<|to|>\\n" }}
        {%- endif %}
        {% endgeneration %}
    {%- elif message.role == "tool" %}
        {{- "<|from|>user\\n" + message.content | string + "<|to|>\\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|from|>assistant\\n" }}{%- endif %}"""

TEMPLATES["generation-marks"] = """{%- for message in messages -%}
{{- '<|' ~ message.role ~ '|>\n' -}}
{%- if message.role == 'assistant' -%}
{%- generation -%}
{%- set text = message.content | default('', true) -%}
{{- text ~ eos_token -}}
{%- endgeneration -%}
{%- else -%}
{{- (message.content or '') ~ eos_token -}}
{%- endif -%}
{%- endfor -%}
{{- '<|assistant|>\n' if add_generation_prompt else '' -}}"""

TEMPLATES["yi"] = """{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}{% endif %}{% if system_message is defined %}{{ system_message }}{% endif %}{% for message in messages %}{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|from|>user\\n' + content + '<|to|>\\n<|from|>assistant\\n' }}{% elif message['role'] == 'assistant' %}{{ content + '<|to|>' + '\\n' }}{% endif %}{% endfor %}"""

TEMPLATES["internlm"] = """{{ bos_token }}{% for message in messages %}{{'<|from|>' + message['role'] + '\n' + (message['content'] if message['content'] is string else message['content'] | tojson) + '<|to|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|from|>assistant\n' }}{% endif %}"""

TEMPLATES["solar"] = """{% for message in messages %}{% if message['role'] == 'system' %}{% if message['content']%}{{'### System:\n' + message['content']+'\n\n'}}{% endif %}{% elif message['role'] == 'user' %}{{'### User:\n' + message['content']+'\n\n'}}{% elif message['role'] == 'assistant' %}{{'### Assistant:\n'  + message['content']}}{% endif %}{% if loop.last and add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}{% endfor %}"""

TEMPLATES["openchat"] = """{{ bos_token }}{% for message in messages %}{{ 'Model Right ' + message['role'].title() + ': ' + message['content'] + '<|turn|>'}}{% endfor %}{% if add_generation_prompt %}{{ 'Model Right Assistant:' }}{% endif %}"""

TEMPLATES["nemotron"] = """{{'<extra>System'}}{% for message in messages %}{% if message['role'] == 'system' %}{{'\n' + message['content'].strip()}}{% if tools or contexts %}{{'\n'}}{% endif %}{% endif %}{% endfor %}{% if tools %}{% for tool in tools %}{{ '\n<tool> ' + tool|tojson + ' </tool>' }}{% endfor %}{% endif %}{% if contexts %}{% for context in contexts %}{{ '\n<context> ' + context.strip() + ' </context>' }}{% endfor %}{% endif %}{{'\n\n'}}{% for message in messages %}{% if message['role'] == 'user' %}{{ '<extra>User\n' + message['content'].strip() + '\n' }}{% elif message['role'] == 'assistant' %}{{ '<extra>Assistant\n' + (message['content'] or '').strip() + '\n' }}{% elif message['role'] == 'tool' %}{{ '<extra>Tool\n' + message['content'].strip() + '\n' }}{% endif %}{% endfor %}{%- if add_generation_prompt %}{{'<extra>Assistant\n'}}{%- endif %}"""

TEMPLATES["glm-4"] = """[start]<sop>
{%- if tools -%}
<|system|>
# Tools
{%- for tool in tools %}
## {{ tool['function']['name'] }}

{{ tool['function'] | tojson(indent=4, ensure_ascii=False) }}
{%- endfor %}
{%- endif -%}
{%- for msg in messages %}
{%- if msg.role == 'system' %}
<|system|>
{{ msg.content }}
{%- elif msg.role in ['user', 'observation', 'tool'] %}
<|{{ 'observation' if msg.role == 'tool' else msg.role }}|>{{ '\\n' }}
{%- if msg.content is string %}{{ msg.content }}
{%- else %}{% for item in msg.content %}{% if item.type == 'text' %}{{ item.text }}{% elif item.type in ('image', 'video') %}<|{{ item.type }}|>{% endif %}{% endfor %}
{%- endif %}
{%- elif msg.role == 'assistant' %}
<|assistant|>{{ msg.metadata or '' }}
{{ msg.content if msg.content }}
{%- for tc in msg.tool_calls or [] %}
{{ tc.function.name }}
{% for k, v in tc.function.arguments.items() %}<k>{{ k }}</k>
<v>{{ v if v is string else v | tojson(ensure_ascii=False) }}</v>
{% endfor %}
{%- endfor %}
{%- endif %}
{%- endfor %}
{% if add_generation_prompt %}<|assistant|>{% endif %}"""

TEMPLATES["gpt-oss"] = """{%- macro render_typescript_type(param_spec, required_params, is_nullable=false) -%}
    {%- if param_spec.type == "array" -%}
        {%- if param_spec['items'] -%}
            {%- if param_spec['items']['type'] == "string" -%}
                {{- "string[]" }}
            {%- else -%}
                {%- set inner_type = render_typescript_type(param_spec['items'], required_params) -%}
                {{- inner_type + "[]"}}
            {%- endif -%}
        {%- else -%}
            {{- "any[]" }}
        {%- endif -%}
    {%- elif param_spec.type is defined and param_spec.type is iterable and param_spec.type is not string and param_spec.type is not mapping and param_spec.type[0] is defined -%}
        {%- if param_spec.type | length > 1 -%}
            {{- param_spec.type | join(" | ") }}
        {%- else -%}
            {{- param_spec.type[0] }}
        {%- endif -%}
    {%- elif param_spec.type == "string" -%}
        {%- if param_spec.enum -%}
            {{- '"' + param_spec.enum|join('" | "') + '"' -}}
        {%- else -%}
            {{- "string" }}
        {%- endif -%}
    {%- elif param_spec.type in ("number", "integer") -%}
        {{- "number" }}
    {%- else -%}
        {{- "any" }}
    {%- endif -%}
{%- endmacro -%}
{%- macro render_tool_namespace(namespace_name, tools) -%}
    {{- "## " + namespace_name + "\\n\\n" }}
    {{- "namespace " + namespace_name + " {\\n\\n" }}
    {%- for tool in tools %}
        {%- set tool = tool.function %}
        {{- "// " + tool.description + "\\n" }}
        {{- "type "+ tool.name + " = " }}
        {%- if tool.parameters and tool.parameters.properties %}
            {{- "(_: {\\n" }}
            {%- for param_name, param_spec in tool.parameters.properties.items() %}
                {%- if param_spec.description %}
                    {{- "// " + param_spec.description + "\\n" }}
                {%- endif %}
                {{- param_name }}
                {%- if param_name not in (tool.parameters.required or []) -%}
                    {{- "?" }}
                {%- endif -%}
                {{- ": " }}
                {{- render_typescript_type(param_spec, tool.parameters.required or []) }}
                {%- if param_spec.default is defined -%}
                    {{- ", // default: " + param_spec.default|string }}
                {%- else -%}
                    {{- "," }}
                {%- endif -%}
                {{- "\\n" }}
            {%- endfor %}
            {{- "}) => any;\\n\\n" }}
        {%- else -%}
            {{- "() => any;\\n\\n" }}
        {%- endif -%}
    {%- endfor %}
    {{- "} // namespace " + namespace_name }}
{%- endmacro -%}
{{- "<|s|>system<|m|>Now: " + strftime_now("%Y-%m-%d") + "<|e|>" }}
{%- if tools -%}
    {{- "<|s|>developer<|m|>" + render_tool_namespace("functions", tools) + "<|e|>" }}
{%- endif -%}
{%- set last_tool_call = namespace(name=none) %}
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if message.tool_calls -%}
            {%- if message.content and message.thinking %}
                {{- raise_exception("Both content and thinking beside a call") }}
            {%- endif %}
            {%- set tool_call = message.tool_calls[0] %}
            {%- if tool_call.function %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- "<|s|>assistant to=functions." + tool_call.name + "<|m|>" }}
            {{- tool_call.arguments|tojson }}
            {{- "<|call|>" }}
            {%- set last_tool_call.name = tool_call.name %}
        {%- elif loop.last and not add_generation_prompt %}
            {%- if message.thinking is defined %}
                {{- "<|s|>assistant<|c|>analysis<|m|>" + message.thinking + "<|e|>" }}
            {%- endif %}
            {{- "<|s|>assistant<|c|>final<|m|>" ~ message.content ~ "<|r|>" }}
        {%- else %}
            {{- "<|s|>assistant<|c|>final<|m|>" ~ message.content ~ "<|e|>" }}
            {%- set last_tool_call.name = none %}
        {%- endif %}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none %}
            {{- raise_exception("A result without a call before it") }}
        {%- endif %}
        {{- "<|s|>functions." + last_tool_call.name }}
        {{- " to=assistant<|m|>" + message.content|tojson + "<|e|>" }}
    {%- else -%}
        {{- "<|s|>" ~ message.role ~ "<|m|>" ~ message.content ~ "<|e|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|s|>assistant
{%- endif -%}"""

TEMPLATES["functionary"] = """{%- for message in messages -%}
{%- set who = {'user': 'U', 'assistant': 'A', 'system': 'S'}.get(message.role, '?') -%}
[{{ '%02d' % loop.index }}/{{ '%s' % (messages | length) }}] {{ '%-4s|%s' % (who, message.content if message.content is string else '') }}
{% for call in message.get('tool_calls', []) -%}
{{ '%s(%s)' % (call.function.name, call.function.arguments.keys() | join(', ')) }}
{% endfor %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '{role:<6}|{n:03d}'.format(role='A', n=messages | length) }}{% endif %}"""

TEMPLATES["python-methods"] = """{%- for message in messages -%}
{%- set text = message.content if message.content is string else (message.content or []) | map(attribute='type') | join('+') -%}
{%- set words = text.split() -%}
{{ message.role.capitalize() }}|{{ words | length }}|{{ text | wordcount }}|{{ text.rsplit(' ', 1) }}|{{ text.split('\\n', 1)[0] }}|{{ text.partition(' ')[2] }}
{{ text.title() }}|{{ text | title }}|{{ text.swapcase() }}|{{ text.count('e') }}|{{ text.find('i') }}|{{ text.upper().startswith(('H', 'B')) }}
{{ text[::-1] }}|{{ text[1:-1] }}|{{ text.ljust(8, '.') }}|{{ text.zfill(4) }}|{{ text.splitlines() }}|{{ [text] }}|{{ text.removeprefix('turn').removesuffix('line') }}
{% endfor %}"""

TEMPLATES["python-values"] = """{%- set ns = namespace(seen=[], total=0) -%}
{%- for message in messages -%}
{%- set ns.seen = ns.seen + [message.role] -%}
{%- set ns.total = ns.total + (message.content or '') | length -%}
{%- endfor -%}
{{ ns.seen }} {{ ns.total / 2 }} {{ ns.total // 4 }} {{ ns.total % 3 }} {{ -ns.total // 4 }} {{ 2 ** 3 }} {{ ns.total | float }} {{ 1e20 }} {{ 0.1 + 0.2 }} {{ true }} {{ none }} {{ (1,) }} {{ {'a': none, 'b': [true, 1.0]} }} {{ "'" * 3 }} {{ ["it's", 'say "x"', 'é\\n'] }}
{{ ns.seen | unique | list }} {{ ns.seen | sort(reverse=true) }} {{ messages | groupby('role') | map('first') | list }} {{ ns.seen | join('+') | upper }} {{ 'user' in ns.seen and 'x' not in ns.seen }} {{ 1 < 2 <= 2 }} {{ ns.seen[-1] ~ ns.seen[0:2] | tojson }} {{ [3, 1, 2] | sort | list }} {{ '5' | int + 1 }} {{ 'x' | int(-1) }} {{ 7.5 | round | int }} {{ 3.14159 | round(2) }}
{{ tools | tojson(sort_keys=true) if tools else '-' }} {{ tools[0] | tojson(separators=(',', ':')) if tools else '-' }} {{ messages | tojson(ensure_ascii=true) }} {{ messages[0] }}"""

TEMPLATES["loop-controls"] = """{% for message in messages recursive %}
  {% if message.role == 'system' %}
    {% continue %}
  {% endif %}
  {% if loop.index > 4 %}
    {% break %}
  {% endif %}
{{ loop.index }}{{ loop.cycle('a', 'b') }}{{ loop.revindex0 }}{{ 'same' if not loop.changed(message.role) }}:{{ loop.depth }}
{%- endfor %}
{%+ if add_generation_prompt %} go{% endif +%}
  {#- gone -#}
  {% filter upper | trim %}  {{ messages[-1].role }} {% endfilter %}
{% set block %}
[{{ messages | length }}]
{% endset %}
{{ block | trim }}
{% macro bow(name, deep=1) %}<{{ name }}*{{ deep }}{{ caller() if caller else '' }}>{% endmacro %}
{{ bow('x') }}{{ bow(name='y', deep=2) }}{% call bow('z', 3) %}!{% endcall %}
{% with a = 1, b = 'q' %}{{ a ~ b }}{% endwith %}{{ a is defined }}
{% for key, value in {'k': 1, 'j': 2}.items() %}{{ key }}={{ value }}{{ ',' if not loop.last }}{% else %}none{% endfor %}
{% raw %}{{ kept }}{% endraw %}
"""

TEMPLATES["xml-indent"] = """{%- for tool in tools or [] -%}
<tool>
{{ tool.function.parameters | tojson(indent=2) | indent(2, first=true) }}
</tool>
{% endfor %}
{%- for document in documents or [] %}
<doc index="{{ loop.index }}" title="{{ document.title | e }}">
{{ document.text | indent(4) }}
</doc>
{%- endfor %}
{%- for message in messages %}
<{{ message.role }}>{{ message.content | e if message.content is string else '' }}</{{ message.role }}>
{%- endfor %}
{{ '<assistant>' if add_generation_prompt }}"""
