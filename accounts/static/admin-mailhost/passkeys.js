// Asks the browser for a passkey, or for a signature of one, and sends what it says with the form (accounts/two_factor).

const octets = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const known = (keys) => keys.map((key) => ({ ...key, id: octets(key.id) }));

const ask = {
  async make(question) {
    question.user.id = octets(question.user.id);
    question.excludeCredentials = known(question.excludeCredentials);
    const { rawId, type, response } = await navigator.credentials.create({ publicKey: question });
    return {
      rawId: text(rawId),
      type,
      response: {
        clientDataJSON: text(response.clientDataJSON),
        attestationObject: text(response.attestationObject),
      },
    };
  },
  async sign(question) {
    question.allowCredentials = known(question.allowCredentials);
    const { rawId, type, response } = await navigator.credentials.get({ publicKey: question });
    return {
      rawId: text(rawId),
      type,
      response: {
        clientDataJSON: text(response.clientDataJSON),
        authenticatorData: text(response.authenticatorData),
        signature: text(response.signature),
      },
    };
  },
};

for (const form of document.querySelectorAll("form[data-passkey]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    const tell = (problem) => {
      for (const one of form.querySelectorAll("[data-problem]")) one.hidden = one.dataset.problem !== problem;
    };
    tell("");
    if (!window.PublicKeyCredential) return tell("none");
    button.disabled = true;
    try {
      const question = JSON.parse(form.dataset.question);
      question.challenge = octets(question.challenge);
      form.elements.answer.value = JSON.stringify(await ask[form.dataset.passkey](question));
      form.submit();
    } catch (error) {
      button.disabled = false;
      tell(error.name === "InvalidStateError" ? "there" : "failed");
    }
  });
}
