"""Chat templates that behave as those of the Qwen-VL families do."""

_PARTS = ("{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
          "{% if part.type == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
          "{% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}")
_TURN = "{{ '<|im_start|>' + m.role + '\\n' }}" + _PARTS + "{{ '<|im_end|>\\n' }}"
_END = "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

# Qwen2-VL and Qwen2.5-VL: a system message of its own where there is none
QWEN2_VL = ("{% for m in messages %}{% if loop.first and m.role != 'system' %}{{ '<|im_start|>system\\nYou are a "
            "helpful assistant.<|im_end|>\\n' }}{% endif %}" + _TURN + _END)
QWEN3_VL = "{% for m in messages %}" + _TURN + _END
# a text model's: joins strings, so that a list is an error; prints whatever it is; passes over what is no string
JOINS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}" + _END
PRINTS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
PASSES_OVER = "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% endif %}{% endfor %}"
TEXT_PARTS = ("{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}"
              "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}")
