document.body.append("AetherFlow");
