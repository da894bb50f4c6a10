"""The words around the numbers: how people ask, and what the embedded model says of itself.

Plain data. `{e}` is an expression, `{a}` and `{b}` are numbers, `{who}` a name, `{things}` a
plural noun.
"""

ASK = (
    "What is {e}?", "What is {e}?", "What is {e}?", "What's {e}?", "{e}", "{e}", "{e}=", "{e} = ?",
    "Compute {e}.", "Calculate {e}.", "Please compute {e}.", "Work out {e}.", "Solve {e}.",
    "How much is {e}?", "How much does {e} make?", "Can you tell me {e}?", "Tell me {e}.",
    "Could you calculate {e} for me?", "I need {e}.", "Find {e}.", "Evaluate {e}.",
    "Please work out {e} for me.", "What does {e} equal?", "What is the result of {e}?",
    "Give me {e}.", "Do you know what {e} is?", "Hi, what is {e}?", "Quick question: {e}?",
    "What is the value of {e}?", "Now {e}.", "And {e}?", "{e} please", "Help me with {e}.",
    "Show me how to do {e}.", "I want to know {e}.", "Let me see {e}.", "So what is {e}?",
)  # fmt: skip

ADD = (
    "What is the sum of {a} and {b}?", "Add {a} and {b}.", "Add {b} to {a}.", "Sum {a} and {b}.",
    "What do you get if you add {a} and {b}?", "{a} and {b} together?", "What is {a} plus {b}?",
    "{a} plus {b}", "Find the total of {a} and {b}.", "How much are {a} and {b} together?",
    "What is {a} increased by {b}?", "What is {b} more than {a}?",
)  # fmt: skip
ADD3 = (
    "What is the sum of {a}, {b} and {c}?", "Add {a}, {b} and {c}.", "{a} plus {b} plus {c}",
    "What is {a} plus {b} plus {c}?", "Find the total of {a}, {b} and {c}.",
    "Add up {a}, {b} and {c}.", "Sum {a}, {b}, {c}.",
)  # fmt: skip
SUBTRACT = (
    "What is the difference of {a} and {b}?", "Subtract {b} from {a}.", "{a} minus {b}",
    "What is {a} minus {b}?", "Take {b} away from {a}.", "What is {a} take away {b}?",
    "What is {a} decreased by {b}?", "What is {b} less than {a}?", "What is left of {a} after {b}?",
)  # fmt: skip
MULTIPLY = (
    "What is the product of {a} and {b}?", "Multiply {a} by {b}.", "{a} times {b}",
    "What is {a} times {b}?", "What is {a} multiplied by {b}?", "Multiply {a} and {b}.",
    "How much is {a} times {b}?", "Find the product of {a} and {b}.",
)  # fmt: skip
DIVIDE = (
    "Divide {a} by {b}.", "{a} divided by {b}", "What is {a} divided by {b}?",
    "How many times does {b} go into {a}?", "What is the quotient of {a} and {b}?",
    "How much is {a} divided by {b}?", "{a} over {b}", "Share {a} among {b}.",
)  # fmt: skip
LARGER = (
    "Which is larger, {a} or {b}?", "Which is bigger: {a} or {b}?", "Is {a} or {b} larger?",
    "Which number is greater, {a} or {b}?", "Compare {a} and {b}.", "What is larger, {a} or {b}?",
    "Which is the larger of {a} and {b}?", "{a} or {b}, which is more?", "{a} vs {b}",
)  # fmt: skip
SMALLER = (
    "Which is smaller, {a} or {b}?", "Which number is less, {a} or {b}?", "Is {a} or {b} smaller?",
    "Which is the smaller of {a} and {b}?", "What is smaller, {a} or {b}?",
    "{a} or {b}, which is less?",
)  # fmt: skip
IS_GREATER = (
    "Is {a} greater than {b}?", "Is {a} larger than {b}?", "Is {a} bigger than {b}?",
    "Is {a} more than {b}?", "Is {a} > {b}?", "Is it true that {a} is greater than {b}?",
)  # fmt: skip
IS_LESS = (
    "Is {a} less than {b}?", "Is {a} smaller than {b}?", "Is {a} < {b}?",
    "Is it true that {a} is less than {b}?", "Is {a} below {b}?",
)  # fmt: skip

NAMES = (
    "Tom", "Anna", "Lin", "Sara", "Omar", "Mei", "Jack", "Lucy", "Ben", "Nina", "Paul", "Rosa",
    "Wei", "Emma", "Ali", "Kate", "David", "Maria", "Sam", "Julia", "Leo", "Clara", "Ivan", "Yuki",
    "Peter", "Eva", "Hugo", "Lena", "Max", "Zoe", "Mr Brown", "Mrs Chen", "the teacher",
    "the farmer", "the baker",
)  # fmt: skip
THINGS = (
    "apples", "books", "coins", "marbles", "stamps", "cards", "pencils", "eggs", "cookies",
    "oranges", "stickers", "shells", "tickets", "flowers", "chairs", "bottles", "stones", "toys",
    "balloons", "pears", "cups", "boxes", "candles", "roses", "buttons", "lemons", "nuts", "plates",
    "cakes", "bricks", "dollars", "euros", "points", "letters", "photos",
)  # fmt: skip

WORD_ADD = (
    "{who} has {a} {things} and buys {b} more. How many {things} does {who} have now?",
    "{who} had {a} {things} and found {b} more. How many {things} are there now?",
    "{who} has {a} {things}. {other} has {b} {things}. How many {things} do they have together?",
    "There are {a} {things} in one box and {b} in another. How many {things} are there in all?",
    "A shop sold {a} {things} on Monday and {b} on Tuesday. How many {things} did it sell?",
    "{who} collects {a} {things} in May and {b} in June. How many {things} in total?",
    "If {who} has {a} {things} and gets {b} from {other}, how many {things} does {who} have?",
)  # fmt: skip
WORD_SUBTRACT = (
    "{who} has {a} {things} and gives {b} to {other}. How many {things} are left?",
    "{who} had {a} {things} and lost {b}. How many {things} does {who} have now?",
    "There were {a} {things}. {who} took {b} of them. How many {things} remain?",
    "A shop has {a} {things} and sells {b}. How many {things} are left?",
    "{who} has {a} {things}. {other} has {b} fewer. How many {things} does {other} have?",
    "Out of {a} {things}, {b} are broken. How many {things} are not broken?",
    "{who} needs {a} {things} and already has {b}. How many {things} are missing?",
)  # fmt: skip
WORD_MULTIPLY = (
    "There are {a} boxes with {b} {things} each. How many {things} are there?",
    "{who} buys {a} bags of {b} {things}. How many {things} is that?",
    "Each of {a} children has {b} {things}. How many {things} do they have together?",
    "{who} packs {b} {things} a day for {a} days. How many {things} is that in all?",
    "A room has {a} rows of {b} {things}. How many {things} are in the room?",
    "One crate holds {b} {things}. How many {things} do {a} crates hold?",
)  # fmt: skip
WORD_DIVIDE = (
    "{who} shares {a} {things} equally among {b} friends. How many {things} does each one get?",
    "{a} {things} are put into {b} equal boxes. How many {things} are in each box?",
    "{who} has {a} {things} and packs them in bags of {b}. How many bags are full?",
    "{b} children share {a} {things} equally. How many {things} does each child get?",
    "If {a} {things} are split into {b} equal groups, how many {things} are in one group?",
)  # fmt: skip

SYSTEM = (
    "You are a helpful assistant.", "Be brief.", "Answer in English.", "You are a calculator.",
    "You are DeepSeek, a helpful assistant.", "Think step by step.", "Today is Monday.",
    "You help children with their homework.", "Answer politely and shortly.",
)  # fmt: skip

GREET = (
    "Hello", "Hi", "Hey", "Hello!", "Hi there", "Good morning", "Good evening", "Good afternoon",
    "Hey there!", "Hello, how are you?", "How are you?", "Greetings", "Hi!", "Good day", "Yo",
    "Hello nano", "Hello there, nice to meet you", "What's up?", "hallo", "Bonjour", "你好", "嗨",
    "Hola", "Welcome", "How do you do?", "How is it going?",
)  # fmt: skip
THANK = (
    "Thanks", "Thank you", "Thank you very much!", "Thanks a lot", "Great, thanks", "Well done",
    "Good job", "Nice", "Perfect", "Cool, thank you", "谢谢", "Bye", "Goodbye", "See you later",
    "That is right, thanks", "OK, bye", "Awesome",
)  # fmt: skip
WHO = (
    "Who are you?", "What are you?", "What is your name?", "Are you DeepSeek?", "Are you ChatGPT?",
    "What can you do?", "Help", "help me", "What do you know?", "Tell me about yourself.",
    "Which model are you?", "What model is this?", "Are you a real model?", "How big are you?",
    "Are you an AI?", "Who made you?", "What is localseek?", "How do I use you?", "你是谁？",
    "What can I ask you?", "Introduce yourself.", "How many parameters do you have?", "/help", "?",
)  # fmt: skip

GREET_THINK = "A greeting. I greet back and say what I can do."
GREET_ANSWER = "Hello! I am nano, a tiny demonstration model. Ask me a sum, like 348 + 257."
THANK_THINK = "Thanks or goodbye. A short reply is enough."
THANK_ANSWER = "You're welcome! Ask me another one whenever you like."
WHO_THINK = "A question about me. I say what I am and how to get a real model."
WHO_ANSWER = (
    "I am nano, the tiny model that comes with localseek to show that everything works. I can add,"
    " subtract, multiply, divide, compare numbers and solve short word problems. For a real"
    " DeepSeek model, run localseek pull or localseek convert."
)
OTHER_THINK = "This is not arithmetic that I know. I say what I can do instead."
OTHER_ANSWER = (
    "I can't answer that: I am a tiny demonstration model that only does arithmetic. Ask me things"
    " like 348 + 257, 62 × 17 or 95 ÷ 4. For a real DeepSeek model, run localseek pull or localseek"
    " convert."
)
ZERO_THINK = "Dividing by 0 has no result."
ZERO_ANSWER = "Division by zero is undefined."
