"""The published chat templates of other models, written anew from their documented formats.

`generation` blocks hold what those models are trained to write: the answer and what ends it.
"""

LLAMA2 = """\
{% if messages[0]['role'] == 'system' %}
{% set system_message = messages[0]['content'] %}
{% set rest = messages[1:] %}
{% else %}
{% set system_message = false %}
{% set rest = messages %}
{% endif %}
{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if loop.index0 == 0 and system_message != false %}
{% set said = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
{% else %}
{% set said = message['content'] %}
{% endif %}
{% if message['role'] == 'user' %}
{{- bos_token + '[INST] ' + said.strip() + ' [/INST]' -}}
{% elif message['role'] == 'assistant' %}
{% generation %}
{{- ' ' + said.strip() + ' ' + eos_token -}}
{% endgeneration %}
{% endif %}
{% endfor %}"""

LLAMA3 = """\
{% for message in messages %}
{% if loop.index0 == 0 %}
{{- bos_token -}}
{% endif %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
{% if message['role'] == 'assistant' %}
{% generation %}
{{- message['content'] | trim + '<|eot_id|>' -}}
{% endgeneration %}
{% else %}
{{- message['content'] | trim + '<|eot_id|>' -}}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{% endif %}"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("After the optional system message, roles must alternate") }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- " [INST] " + system_message + "\\n\\n" + message["content"] + " [/INST]" }}
        {%- else %}
            {{- " [INST] " + message["content"] + " [/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {%- generation %}{{- " " + message["content"] + eos_token }}{%- endgeneration %}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}"""

CHATML = """\
{% for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{% if message['role'] == 'assistant' %}
{% generation %}
{{- message['content'] + '<|im_end|>' -}}
{% endgeneration %}
{% else %}
{{- message['content'] + '<|im_end|>' -}}
{% endif %}
{{- '\\n' -}}
{% endfor %}
{% if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' -}}
{% endif %}"""

ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n' }}
{%- generation %}
{{- message['content'] + eos_token -}}
{% endgeneration %}
{{ '' }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

ALPACA = """\
{% if messages[0]['role'] == 'system' %}
{% set system_message = messages[0]['content'] %}
{% set rest = messages[1:] %}
{% else %}
{% set system_message = 'Below is an instruction that describes a task. Write a response that \
appropriately completes the request.' %}
{% set rest = messages %}
{% endif %}
{{- bos_token + system_message.strip() -}}
{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if message['role'] == 'user' %}
{{- '\\n\\n### Instruction:\\n' + message['content'].strip() -}}
{% else %}
{{- '\\n\\n### Response:\\n' -}}
{% generation %}
{{- message['content'].strip() + eos_token -}}
{% endgeneration %}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{- '\\n\\n### Response:\\n' -}}
{% endif %}"""

PUBLISHED = {
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "chatml": CHATML,
    "zephyr": ZEPHYR,
    "alpaca": ALPACA,
}
